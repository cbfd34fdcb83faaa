"""Hints for clips: what a language model says each line was probably meant like, for a text encoder to read beside it.

    clips ──► distinct lines ──► cache (SQLite) ──► those unknown ──► `asking` ──► clip.hint
                                      ▲                                  │
                                      └── every answer, junk and all ◄───┘

What the endpoint did answer is never asked again; what it failed to answer (TIMEOUT, HTTP_500, BUDGET) the next run asks anew. A
clip without a usable answer keeps no hint, and its code says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.encoders.asking import FINAL, Asking, Hint, HintSettings, instructions
from orchestrator.encoders.text import text_of
from orchestrator.vocabulary import Clip, Emotions, Rejected

__all__ = ["HintReport", "HintSettings", "hint_key", "with_hints"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS hints (
    key TEXT PRIMARY KEY, model TEXT, code TEXT, emotion TEXT, reason TEXT, tokens INTEGER
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class HintReport:
    """What a run of hints cost, and what it did not get.

    - `known`: distinct lines answered from the cache; `requests`, `tokens`: of this run.
    - `missing`: every clip with words that has no hint, with the code.
    """

    known: int
    requests: int
    tokens: int
    missing: tuple[Rejected, ...]


def with_hints(
    clips: Sequence[Clip],
    emotions: Emotions,
    settings: HintSettings,
    cache: Path,
    *,
    on_answer: Callable[[int], None] = lambda left: None,
) -> tuple[tuple[Clip, ...], HintReport]:
    """The clips with their hints; one that has a hint keeps it. `on_answer` is told after each answer how many are left.

    Raises ConfigError, or ModelUnavailable when the endpoint cannot be used at all.
    """
    lines = [None if clip.hint else text_of(clip, "transcript") for clip in clips]
    keys = {line: hint_key(settings.asked_model, emotions, line) for line in lines if line}
    with closing(_open(cache)) as store:
        hints = dict(_known(store, keys))
        known = len(hints)
        asking = Asking(settings, emotions)
        unknown = [line for line in keys if line not in hints]
        if unknown:

            def keep(line: str, hint: Hint) -> None:
                hints[line] = hint
                if hint.code in FINAL:
                    _write(store, keys[line], settings.asked_model, hint)
                on_answer(len(keys) - len(hints))

            asyncio.run(asking.ask_all(unknown, keep))
    found = [hints[line] if line else None for line in lines]
    hinted = tuple(replace(clip, hint=hint.text) if hint else clip for clip, hint in zip(clips, found, strict=True))
    answers = [(clip.clip_id, hint) for clip, hint in zip(clips, found, strict=True) if hint]
    missing = tuple(Rejected(clip_id, "hint", hint.code, hint.reason) for clip_id, hint in answers if not hint.text)
    return hinted, HintReport(known, asking.requests, asking.tokens, missing)


def hint_key(model: str, emotions: Emotions, line: str) -> str:
    """Key of the cache: SHA-256 of the model, the prompt as it is worded, and the line."""
    return hashlib.sha256(json.dumps([model, instructions(emotions), line]).encode()).hexdigest()


def _open(cache: Path) -> sqlite3.Connection:
    cache.parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(cache, isolation_level=None, timeout=30)
    store.execute("PRAGMA journal_mode=WAL")
    store.execute(_SCHEMA)
    return store


def _known(store: sqlite3.Connection, keys: Mapping[str, str]) -> Iterator[tuple[str, Hint]]:
    for line, key in keys.items():
        row = store.execute("SELECT code, emotion, reason, tokens FROM hints WHERE key = ?", (key,)).fetchone()
        if row:
            yield line, Hint(*row)


def _write(store: sqlite3.Connection, key: str, model: str, hint: Hint) -> None:
    values = (key, model, hint.code, hint.emotion, hint.reason, hint.tokens)
    store.execute("INSERT OR IGNORE INTO hints VALUES (?, ?, ?, ?, ?, ?)", values)
