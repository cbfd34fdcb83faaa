"""SHA-256 of every clip's file: features go by content, so renaming or copying a video re-encodes nothing.

Hashing reads the file once; (path, size, time of change) keys a cache, so that a second run reads nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from orchestrator.vocabulary import Clip, Split

_THREADS = 8  # hashing lets go of the interpreter; more than a few threads only queue at the disk


def with_digests(clips: Sequence[Clip], *, cache: Path) -> tuple[Clip, ...]:
    """The clips with `digest` filled in; "" for a file that cannot be read, which decoding will explain.

    `cache` is a JSON file; a damaged one is made anew.
    """
    stamps = [_stamp(clip.path) for clip in clips]
    known = _read(cache)
    fresh = [(clip.path, stamp) for clip, stamp in zip(clips, stamps, strict=True) if stamp and stamp not in known]
    with ThreadPoolExecutor(_THREADS) as threads:
        digests = threads.map(_digest, [path for path, _ in fresh])
        known |= {stamp: digest for (_, stamp), digest in zip(fresh, digests, strict=True) if digest}
    if fresh:
        _write(cache, known)
    return tuple(replace(clip, digest=known.get(stamp, "")) for clip, stamp in zip(clips, stamps, strict=True))


def content_problems(clips: Sequence[Clip]) -> tuple[str, ...]:
    """What is wrong with labels once equal files are seen as equal: one sentence a pair; needs `with_digests`.

    A test clip that is also a labelled clip makes every score a lie; two labels for one film cannot both be learnt.
    """
    problems = []
    first: dict[str, Clip] = {}
    for clip in sorted(clips, key=lambda clip: clip.split is not Split.LABELLED):
        other = first.setdefault(clip.digest, clip) if clip.digest and clip.split is not Split.UNLABELLED else clip
        same = f"clips {other.clip_id!r} and {clip.clip_id!r} are the same file"
        if other.split is Split.LABELLED and clip.split is Split.TEST:
            problems.append(f"{same}, one labelled and one in the test split; drop one of them")
        elif other.label is not None and clip.label is not None and other.label != clip.label:
            problems.append(f"{same} with different labels; keep the right one")
    return tuple(problems)


def _stamp(path: str) -> str:
    """What a file's digest is cached under; "" when it is not a regular file, which must not even be opened."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{path}|{status.st_size}|{status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _read(cache: Path) -> dict[str, str]:
    try:
        told = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _write(cache: Path, known: dict[str, str]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    staged = cache.with_name(f".{cache.name}-{uuid4().hex[:8]}")
    staged.write_text(json.dumps(known))
    staged.replace(cache)
