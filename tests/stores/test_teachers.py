"""A multimodal LLM behind a real HTTP server on loopback: both forms, and all the ways it can fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ModelUnavailable
from orchestrator.stores.teachers import EmotionLlama, Replayed
from orchestrator.vocabulary import Clip, Emotions, Split

SIX = Emotions(("neutral", "angry", "happy", "sad", "worried", "surprise"))


class Server(ThreadingHTTPServer):
    """Answers by the name of the video: `happy.mp4` gets "happy"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.failures = 0  # so many requests get a 500 first


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        gradio = self.path == "/api/predict/"
        if not gradio and self.path != "/process_video":
            return self.reply(404, b"{}")
        if self.server.failures:
            self.server.failures -= 1
            return self.reply(500, b"oops")
        video = Path(body["data"][0] if gradio else body["video_path"]).stem
        if video == "html":
            return self.reply(200, b"<html>")
        if video == "error":
            return self.reply(200, json.dumps({"error": "no such file"}).encode())
        if video == "slow":
            time.sleep(0.5)
        said = f"The emotion is {video}."
        return self.reply(200, json.dumps({"data": [said], "duration": 1} if gradio else {"response": said}).encode())

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def teacher(server: Server, tmp_path: Path, path: str = "/api/predict/") -> EmotionLlama:
    url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    return EmotionLlama(url, SIX, tmp_path / "answers.jsonl", timeout_s=0.3, retries=1, concurrency=2)


def clips(*names: str) -> list[Clip]:
    return [Clip(f"clip_{name}", f"/data/{name}.mp4", Split.UNLABELLED, transcript='Say "hi"', digest=name) for name in names]


@pytest.mark.parametrize("path", ["/api/predict/", "/process_video"])
def test_both_forms_of_the_server_are_understood(server: Server, tmp_path: Path, path: str) -> None:
    asking = replace(teacher(server, tmp_path, path), folder="/data", server_folder="/mnt/videos")
    predictions = asking.ask(clips("sad", "happy"))[0]
    assert predictions.clip_ids.tolist() == ["clip_happy", "clip_sad"]
    assert predictions.probabilities.argmax(axis=1).tolist() == [2, 3]
    assert predictions.teacher == "Emotion-LLaMA"
    prompt = (
        'The person in video says: Say "hi". [emotion] Please determine which emotion label in the video represents: '
        "neutral, angry, happy, sad, worried, surprise."
    )
    asked = [tuple(body.get("data", [body.get("video_path"), body.get("question")])) for body in server.asked]
    assert sorted(asked) == [("/mnt/videos/happy.mp4", prompt), ("/mnt/videos/sad.mp4", prompt)]


def test_junk_errors_and_time_outs_are_counted_and_never_neutral(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, rejected = teacher(server, tmp_path).ask(clips("happy", "html", "error", "slow", "gibberish"))
    assert predictions.clip_ids.tolist() == ["clip_happy"]
    assert {row.clip_id: row.code for row in rejected} == {
        "clip_html": "NO_ANSWER",
        "clip_error": "NO_ANSWER",
        "clip_slow": "NO_ANSWER",
        "clip_gibberish": "UNPARSEABLE",
    }
    assert "1 of 5 clips answered, 3 NO_ANSWER, 1 UNPARSEABLE" in capsys.readouterr().err


def test_what_was_answered_is_never_asked_again(server: Server, tmp_path: Path) -> None:
    asking = teacher(server, tmp_path)
    first = asking.ask(clips("happy", "gibberish"))[0]
    (tmp_path / "answers.jsonl").open("a").write('{"key": "cut sho')
    again = asking.ask(clips("happy", "gibberish", "sad"))[0]
    assert len(server.asked) == 3
    assert again.clip_ids.tolist() == ["clip_happy", "clip_sad"]
    assert first.logits.tolist() == again.logits[:1].tolist()
    asking.ask([replace(clips("happy")[0], transcript="other words")])
    assert len(server.asked) == 4


def test_a_server_that_stumbles_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.failures = 1
    assert len(teacher(server, tmp_path).ask(clips("happy"))[0]) == 1
    assert len(server.asked) == 2


def test_a_wrong_url_ends_the_run_at_once(server: Server, tmp_path: Path) -> None:
    lost = replace(teacher(server, tmp_path), url=f"http://127.0.0.1:{server.server_address[1]}/old/api/predict/", concurrency=1)
    with pytest.raises(ModelUnavailable, match="404"):
        lost.ask(clips(*(f"clip{i}" for i in range(50))))
    assert len(server.asked) < 10
    with pytest.raises(ModelUnavailable, match="nobody listens"):
        replace(lost, url="http://127.0.0.1:9/process_video").ask(clips("happy"))[0]


@pytest.mark.parametrize("change", [{"url": "http://127.0.0.1/ask"}, {"certainty": 0.1}, {"certainty": 1.0}])
def test_settings_that_cannot_be_meant_are_refused(server: Server, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"url|certainty"):
        replace(teacher(server, tmp_path), **change)


def test_a_file_of_answers_speaks_for_clips_by_id_or_file(tmp_path: Path) -> None:
    rows = ["clip_happy,happy", "/elsewhere/sad.mp4,sad", "angry,angry", "worried.mp4,no idea"]
    (tmp_path / "answers.csv").write_text("id,answer\n" + "\n".join(rows))
    predictions, rejected = Replayed(tmp_path / "answers.csv", SIX).ask(clips("happy", "sad", "angry", "worried", "surprise"))
    assert predictions.clip_ids.tolist() == ["clip_angry", "clip_happy", "clip_sad"]
    assert predictions.probabilities.argmax(axis=1).tolist() == [1, 2, 3]
    assert [(row.clip_id, row.code) for row in rejected] == [("clip_surprise", "NO_ANSWER"), ("clip_worried", "UNPARSEABLE")]
