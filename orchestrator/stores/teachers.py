"""Teachers outside this project: a multimodal LLM behind HTTP, or the file of answers it left. Both fill the `Teacher` seam.

    clips ─► answers (asked once, kept) ─► one emotion named? ─► Predictions of those clips, and Rejected for the others

A clip that got no usable answer is left out of the predictions, counted, and never taken for neutral. `answers` gives the words
as they came: hints for a text encoder.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator.errors import InputError, ModelUnavailable
from orchestrator.stores.exchange import read_answers, spoken
from orchestrator.vocabulary import Clip, Emotions, Predictions, Rejected

EMOTION = "[emotion] Please determine which emotion label in the video represents: {names}."
_HOPELESS = (301, 302, 307, 308, 401, 403, 404, 405)  # no other clip would fare better


@dataclass(frozen=True, slots=True)
class EmotionLlama:
    """Emotion-LLaMA's server, in either of its forms; the path of `url` tells which.

    - `.../api/predict/` (Gradio): `{"data": [video, prompt]}` -> `{"data": [text]}`.
    - `.../process_video` (FastAPI): `{"video_path": ..., "question": ...}` -> `{"response": text}`.

    The server opens the video itself: `folder` is what our paths start with, `server_folder` the same place as it sees it.
    `question` follows what is said in the video; `{names}` in it stands for the emotions. Answers are kept in `cache` (JSON
    lines) by video and prompt: a second run asks nothing, another question is asked anew. `certainty` is the probability a named
    emotion gets, since a text carries none.
    """

    url: str
    emotions: Emotions
    cache: str | Path
    folder: str = ""
    server_folder: str = ""
    question: str = EMOTION
    name: str = "Emotion-LLaMA"
    certainty: float = 0.9
    concurrency: int = 1
    timeout_s: float = 120.0
    retries: int = 2

    def __post_init__(self) -> None:
        if not self.url.rstrip("/").endswith(("/api/predict", "/process_video")):
            raise ValueError(f"url {self.url!r} must end in /api/predict/ (Gradio) or /process_video (FastAPI)")
        if not 1 / len(self.emotions) < self.certainty < 1:
            raise ValueError(f"certainty must lie between 1 / {len(self.emotions)} and 1, got {self.certainty}")

    def ask(
        self, clips: Sequence[Clip], *, on_answer: Callable[[], None] = lambda: None
    ) -> tuple[Predictions, tuple[Rejected, ...]]:
        """Predictions of the clips that got a usable answer, sorted, and the others with the reason, counted on stderr.

        `on_answer` is called for each clip. Raises ModelUnavailable when nobody listens.
        """
        return _told(self.answers(clips, on_answer=on_answer), self.emotions, self.name, self.certainty)

    def answers(self, clips: Sequence[Clip], *, on_answer: Callable[[], None] = lambda: None) -> dict[str, str | None]:
        """What the model says of each clip, by id; None where it gave no answer. Raises ModelUnavailable."""
        cache = Path(self.cache)
        known = _known(cache)
        unknown = [clip for clip in clips if self._key(clip) not in known]
        for _ in range(len(clips) - len(unknown)):
            on_answer()
        cache.parent.mkdir(parents=True, exist_ok=True)
        with (
            httpx.Client(timeout=self.timeout_s) as client,
            cache.open("a") as kept,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            for clip, text in zip(unknown, pool.map(lambda clip: self._answer(client, clip), unknown), strict=True):
                if text is not None:
                    known[self._key(clip)] = text
                    kept.write("\n" + json.dumps({"key": self._key(clip), "answer": text}) + "\n")
                    kept.flush()
                on_answer()
        return {clip.clip_id: known.get(self._key(clip)) for clip in clips}

    def prompt(self, clip: Clip) -> str:
        """What the model is asked, in the words it was trained with."""
        said = f"The person in video says: {clip.transcript}. " if clip.transcript else ""
        return said + self.question.replace("{names}", ", ".join(self.emotions.names))

    def _answer(self, client: httpx.Client, clip: Clip) -> str | None:
        path = clip.path
        if self.server_folder:
            path = self.server_folder + clip.path.removeprefix(self.folder)
        gradio = self.url.rstrip("/").endswith("/api/predict")
        body = {"data": [path, self.prompt(clip)]} if gradio else {"video_path": path, "question": self.prompt(clip)}
        for attempt in range(self.retries + 1):
            time.sleep(attempt**2)
            try:
                reply = client.post(self.url, json=body)
            except httpx.ConnectError as error:
                raise ModelUnavailable(f"nobody listens at {self.url} ({error}): start the server, or correct the url") from error
            except httpx.HTTPError:
                continue
            if reply.status_code in _HOPELESS:
                raise ModelUnavailable(
                    f"{self.url} answers {reply.status_code} {reply.reason_phrase}: correct the url, or log in"
                )
            if reply.status_code < 500 and reply.status_code != 429:
                return _text(reply)
        return None

    def _key(self, clip: Clip) -> str:
        asked = json.dumps([self.name, self.url, clip.digest or clip.path, self.prompt(clip)])
        return hashlib.sha256(asked.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Replayed:
    """A file of answers, as `exchange.read_answers` reads it; a clip is found by its id, else by its file's name or stem."""

    path: str | Path
    emotions: Emotions
    name: str = "replayed"
    certainty: float = 0.9

    def ask(
        self, clips: Sequence[Clip], *, on_answer: Callable[[], None] = lambda: None
    ) -> tuple[Predictions, tuple[Rejected, ...]]:
        """Predictions of the clips that have a usable answer, sorted, and the others with the reason, counted on stderr."""
        return _told(self.answers(clips, on_answer=on_answer), self.emotions, self.name, self.certainty)

    def answers(self, clips: Sequence[Clip], *, on_answer: Callable[[], None] = lambda: None) -> dict[str, str | None]:
        """What the file says of each clip, by id; None where it says nothing. Raises InputError."""
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise InputError(f"the answers {self.path} are not there: correct teacher.speaker.path, or hints.path")
        told = read_answers(file)
        by_file = {Path(name.replace("\\", "/")).name: text for name, text in told.items()}
        answers: dict[str, str | None] = {}
        for clip in clips:
            path = Path(clip.path)
            places = [(told, clip.clip_id), (by_file, path.name), (by_file, path.stem)]
            answers[clip.clip_id] = next((held[name] for held, name in places if name in held), None)
            on_answer()
        return answers


def _text(reply: httpx.Response) -> str | None:
    """The text of either form; None for an error, whatever its status."""
    try:
        told = reply.json()
    except ValueError:
        return None
    if reply.is_error or not isinstance(told, dict):
        return None
    said = told.get("response", (told.get("data") or [None])[0] if isinstance(told.get("data"), list) else None)
    return said if isinstance(said, str) else None


def _known(cache: Path) -> dict[str, str]:
    """Answers kept by earlier runs; a line cut short by a crash is asked again."""
    known = {}
    for line in cache.read_text().splitlines() if cache.exists() else ():
        try:
            told = json.loads(line)
            known[told["key"]] = told["answer"]
        except (ValueError, KeyError, TypeError):
            continue
    return known


def _told(
    answers: Mapping[str, str | None], emotions: Emotions, name: str, certainty: float
) -> tuple[Predictions, tuple[Rejected, ...]]:
    predictions, rejected = spoken(answers, emotions, teacher=name, certainty=certainty)
    if rejected:
        codes = ", ".join(f"{count} {code}" for code, count in sorted(Counter(row.code for row in rejected).items()))
        print(f"{name}: {len(predictions)} of {len(answers)} clips answered, {codes}", file=sys.stderr, flush=True)
    return predictions, rejected
