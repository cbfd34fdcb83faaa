"""A teacher from outside in a real run: its answers as labels, its voice as a gate."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.cluster.corpus import Corpus, asked, gather, hinted, read_clips
from orchestrator.cluster.run import Run, self_train
from orchestrator.settings import Experiment
from orchestrator.vocabulary import Split
from tests.cluster.conftest import MakeExperiment

pytestmark = pytest.mark.cluster


@pytest.fixture
def truth(make_experiment: MakeExperiment) -> dict[str, str]:
    """What is true, by clip."""
    manifest = make_experiment().data.manifest
    assert manifest is not None
    with Path(manifest).with_name("truth.csv").open(newline="") as file:
        return {row["clip_id"]: row["label"] for row in csv.DictReader(file)}


def walked(experiment: Experiment) -> tuple[Corpus, Run]:
    corpus = gather(experiment)
    run = Run.of(experiment, corpus)
    assert [record.index for record in self_train(experiment, corpus, run)] == [0, 1]
    return corpus, run


def decided(run: Run) -> dict[str, dict[str, object]]:
    rows = pq.read_table(run.directory / "rounds" / "01" / "decisions.parquet").to_pylist()
    return {row["clip_id"]: row for row in rows}


def test_round_1_learns_what_a_file_of_answers_says_and_nothing_of_its_junk(
    cluster: None, make_experiment: MakeExperiment, truth: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.csv"
    junk = sorted(truth)[:2]
    told = {**truth, junk[0]: "it is hard to say", junk[1]: ""}
    answers.write_text("name,answer\n" + "".join(f"{clip},{said}\n" for clip, said in told.items()))
    replayed = ("teacher=replayed", f"teacher.speaker.path={answers}", "teacher.labels=true", "rounds.rounds=1")
    experiment = make_experiment(*replayed)
    corpus, run = walked(experiment)
    pool = {corpus.clips[i].clip_id for i in corpus.indices(Split.UNLABELLED)}
    rows = decided(run)
    assert set(rows) == pool
    for clip, row in rows.items():
        expected = "no answer" if clip in junk else "accepted"
        assert row["reason"] == expected
        vote = row["vote replayed"]
        assert vote == (-1 if clip in junk else experiment.emotions.index(truth[clip]))
        assert clip in junk or row["label"] == vote
    assert {row.code for row in corpus.unanswered} >= {"UNPARSEABLE"}
    assert "UNPARSEABLE" in capsys.readouterr().err


class Model(ThreadingHTTPServer):
    """Emotion-LLaMA's FastAPI form on loopback."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.questions: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/process_video"


class Handler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = self.server.answers.get(Path(body["video_path"]).stem, "I cannot tell.")
        self.server.questions.append(body["question"])
        why = "The brows are drawn together. " if "[reason]" in body["question"] else ""
        reply = json.dumps({"response": f"{why}The person looks {said}."}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def model(truth: dict[str, str]) -> Iterator[Model]:
    """Right about half of the clips, at a loss about the rest."""
    with Model({clip: label for number, (clip, label) in enumerate(sorted(truth.items())) if number % 2}) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_model_behind_http_gates_what_the_students_learn(
    cluster: None, make_experiment: MakeExperiment, truth: dict[str, str], model: Model, tmp_path: Path
) -> None:
    gate = ("selection=agreement", "selection.voices=[Emotion-LLaMA]", "selection.least=1")
    asked = (
        "teacher=emotion_llama",
        f"teacher.speaker.url={model.url}",
        f"teacher.speaker.cache={tmp_path / 'answers.jsonl'}",
    )
    _, run = walked(make_experiment(*gate, *asked, "rounds.rounds=1"))
    rows = decided(run)
    accepted = {clip: row for clip, row in rows.items() if row["reason"] == "accepted"}
    silent = [clip for clip, row in rows.items() if row["vote Emotion-LLaMA"] == -1]
    assert len(accepted) > 3
    assert len(silent) > 5
    assert not set(silent) & set(accepted)
    labels = run.ledger.labels(1)
    assert labels is not None
    votes = [rows[clip]["vote Emotion-LLaMA"] for clip in labels.clip_ids.tolist()]
    np.testing.assert_array_equal(labels.labels, votes)


def test_what_a_model_said_of_a_video_can_be_its_hint_and_silence_is_none(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text('name,answer\ntoy0000,"His brows are drawn together: angry"\ntoy0001,\n')
    experiment = make_experiment("hints=replayed", f"hints.path={answers}")
    hints = {clip.clip_id: clip.hint for clip in hinted(experiment, read_clips(experiment))}
    assert hints.pop("toy0000") == "His brows are drawn together: angry"
    assert set(hints.values()) == {None}


def test_a_model_that_teaches_and_hints_is_asked_for_the_label_and_for_the_reason_once_each(
    make_experiment: MakeExperiment, model: Model, tmp_path: Path
) -> None:
    both = [f"{use}={model.url}" for use in ("teacher.speaker.url", "hints.url")]
    experiment = make_experiment("teacher=emotion_llama", "hints=emotion_llama", *both, store=tmp_path)
    clips = read_clips(experiment)
    for _ in range(2):
        told, _ = asked(experiment, clips)
        heard = hinted(experiment, clips)
    assert told is not None
    assert len(told) > 10
    assert {str(clip.hint).split(".")[0] for clip in heard} == {"The brows are drawn together"}
    taught = sum("[emotion]" in question for question in model.questions)
    assert (taught, len(model.questions) - taught) == (sum(clip.split is not Split.TEST for clip in clips), len(clips))
