"""Hostile input: more than two hundred videos and manifests, each with what must come of it. `test_hostile` runs them.

Built from a seed by PyAV and byte edits, never stored. A film decodes ("ok", with its flags) or is refused with a code; where
several outcomes are right, all are listed, and "ok*" stands for any flags. Whatever decodes without a warning must show the right
frames: damage may be refused or flagged, never silent. A file outside the root and a listener on loopback must stay untouched.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

import av
import numpy as np

from orchestrator.errors import ManifestError
from orchestrator.media.manifest import read_manifest
from orchestrator.media.reasons import FLAGS, REASONS
from orchestrator.media.sandbox import Sandbox
from orchestrator.vocabulary import Clip, DecodedClip, Emotions, Rejected, Split
from tests.media.films import HEIGHT, WIDTH, number_of, write_film

MIDDLES = (2, 6, 9, 13, 17, 21, 24, 28)  # frames of a whole film that are nearest to the wanted times
CANARY_COLOUR = (250, 0, 250)  # nothing else looks like it
WARNINGS = {"DAMAGED", "EDITED", "VFR"}
LIMITS = {"timeout_s": 4.0, "max_child_mb": 512, "max_bytes": 64 << 20}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a corpus is built: `root` holds the data, the canary lies outside, `port` is listened on."""

    root: Path
    canary: Path
    port: int
    films: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Film:
    """A video and what may come of it. `make` returns the path to hand over; it may write below the folder it is given."""

    name: str
    make: Callable[[Path, Place], Path | str]
    expected: tuple[str, ...]
    numbers: tuple[int, ...] | None = MIDDLES


@dataclass(frozen=True, slots=True)
class Table:
    """A manifest and the words its complaint must hold; None: it is read."""

    name: str
    data: bytes
    complaint: str | None
    file: str = "manifest.csv"


@contextmanager
def place() -> Iterator[Place]:
    """A fresh root with a canary outside it and a listener; both are checked at the end."""
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as listener:
        base = Path(directory)
        (base / "root").mkdir()
        pictures = [np.full((HEIGHT, WIDTH, 3), CANARY_COLOUR, np.uint8)] * 30
        canary, segment = (write_film(base / name, pictures) for name in ("canary.mp4", "canary.ts"))
        before = [sha256(path.read_bytes()).digest() for path in (canary, segment)]
        calls: list[object] = []
        threading.Thread(target=_listen, args=(listener, calls), daemon=True).start()
        yield Place(base / "root", canary, listener.getsockname()[1], _base_films(base))
        assert before == [sha256(path.read_bytes()).digest() for path in (canary, segment)], "the canary was changed"
        assert not calls, "somebody was called"


def verdict(item: Film, box: Sandbox, where: Place) -> str | None:
    """None when the film came out as it must, else what was wrong."""
    folder = where.root / f"{sum(1 for _ in where.root.iterdir()):03d}"
    folder.mkdir()
    try:
        path = item.make(folder, where)
    except (av.FFmpegError, OSError) as error:
        return f"could not be built: {error!r}"
    started = time.monotonic()
    result = box.decode(Clip(item.name, str(path), Split.UNLABELLED))
    took_s = time.monotonic() - started
    if took_s > LIMITS["timeout_s"] + 3:
        return f"took {took_s:.1f} s"
    outcome = outcome_of(result)
    if not any(fnmatchcase(outcome, wanted) for wanted in item.expected):
        return f"gave {outcome!r} ({getattr(result, 'detail', '')}), expected {' or '.join(item.expected)}"
    if isinstance(result, DecodedClip) and len(result.frames):
        if np.abs(result.frames.mean(axis=(1, 2)) - CANARY_COLOUR).max(axis=1).min() < 20:
            return "showed the canary"
        seen = tuple(number_of(frame) for frame in result.frames) if result.frames.shape[2] == WIDTH else ()
        if item.numbers and not WARNINGS & set(result.flags) and seen != item.numbers:
            return f"silently showed frames {seen}"
    return None


def outcome_of(result: DecodedClip | Rejected) -> str:
    """A code, or "ok" with the flags."""
    if isinstance(result, Rejected):
        assert result.code in REASONS, result.code
        return result.code
    assert set(result.flags) <= FLAGS.keys(), result.flags
    return "+".join(("ok", *result.flags))


def complaint(item: Table, where: Place) -> str | None:
    """None when the manifest was read or refused as it must, else what was wrong."""
    for name in ("a.mp4", "b.mp4"):
        (where.root / name).touch()
    path = where.root / item.file
    path.write_bytes(item.data)
    try:
        read_manifest(path, emotions=Emotions(("happy", "sad")))
    except ManifestError as error:
        if item.complaint is None or item.complaint not in str(error):
            return f"complained {str(error)[:300]!r}, expected {item.complaint!r}"
        return None if len(str(error)) < 20_000 else "complained at length"
    return None if item.complaint is None else f"was read, expected {item.complaint!r}"


def _listen(listener: socket.socket, calls: list[object]) -> None:
    while True:
        try:
            connection, caller = listener.accept()
        except OSError:
            return
        calls.append(caller)
        connection.close()


def _base_films(base: Path) -> dict[str, bytes]:
    made = {
        "mp4": write_film(base / "film.mp4"),
        "fast": write_film(base / "fast.mp4", container_options={"movflags": "faststart"}),
        "mkv": write_film(base / "film.mkv"),
        "ts": write_film(base / "film.ts"),
        "avi": write_film(base / "film.avi", sound_codec="libmp3lame"),
        "mute": write_film(base / "mute.mp4", silent=True, container_options={"movflags": "faststart"}),
    }
    return {name: path.read_bytes() for name, path in made.items()}
