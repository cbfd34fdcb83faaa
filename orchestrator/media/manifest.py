"""The manifest: a table of clips, checked as a whole before anything else starts.

    clip_id, path, split, label[, speaker, transcript]        CSV or Parquet

Every problem is listed at once, with its row number (the header of a CSV is row 1) and what to do about it.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import ManifestError
from orchestrator.vocabulary import Clip, Emotions, Split

REQUIRED = ("clip_id", "path", "split", "label")
OPTIONAL = ("speaker", "transcript")
SPLITS = tuple(split.value for split in Split)
Row = Mapping[str, str | None]
_PROTOCOL = re.compile(r"[\w+]+://|(concat|subfile|crypto|data|pipe|file|cache|async|fd)[:,]", re.IGNORECASE)


def read_manifest(path: str | Path, *, root: str | Path | None = None, emotions: Emotions) -> tuple[Clip, ...]:
    """Clips in the order of the rows. Raises ManifestError with every problem.

    `root` is the folder that relative paths start from and that none may leave, the manifest's own by default. A label in an
    unlabelled row is dropped unread: what is known of the pool must not reach training.
    """
    path = Path(path)
    rows = list(_rows(path))
    base = os.path.realpath(root if root is not None else path.parent)  # text: a Path a row doubles a long manifest's time
    if not os.path.isdir(base):
        raise ManifestError(str(path), [f"its root {base} is not a directory; set data.root to where the videos lie"])
    problems: list[str] = []
    seen: dict[str, int] = {}
    clips = []
    for number, row in enumerate(rows, start=2):
        found = list(_problems(row, seen, base, emotions))
        seen.setdefault(_text(row, "clip_id"), number)
        problems += [f"row {number}: {problem}" for problem in found]
        if not found:
            clips.append(_clip(row, base, emotions))
    if not rows:
        problems.append("there are no rows; a run needs at least one labelled clip")
    if problems:
        raise ManifestError(str(path), problems)
    return tuple(clips)


def _rows(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise ManifestError(str(path), ["the file does not exist; set data.manifest to a CSV or Parquet file"])
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise ManifestError(str(path), ["the file is UTF-16 or binary; save it as UTF-8 CSV"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ManifestError(
            str(path), [f"row {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"]
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(path, reader.fieldnames or [])
        yield from reader
    except csv.Error as error:
        raise ManifestError(str(path), [f"row {reader.line_num}: {error}; check the quotes"]) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(str(path), [f"not a readable Parquet file: {error}"]) from error
    _check_columns(path, table.column_names)
    for row in table.select([name for name in (*REQUIRED, *OPTIONAL) if name in table.column_names]).to_pylist():
        yield {key: None if value is None else str(value) for key, value in row.items()}


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    problems = [f"column {name!r} is missing; the header is {','.join(columns)}" for name in REQUIRED if name not in columns]
    problems += [f"column {name!r} appears twice" for name in sorted(set(columns)) if list(columns).count(name) > 1]
    if problems:
        raise ManifestError(str(path), problems)


def _problems(row: Row, seen: Mapping[str, int], base: str, emotions: Emotions) -> Iterator[str]:
    clip_id, split, label = _text(row, "clip_id"), _text(row, "split"), _text(row, "label")
    if None in row or any(row.get(name) is None for name in ("clip_id", "path", "split")):
        yield "the row has more or fewer cells than the header; quote cells that hold commas"
        return
    if not clip_id:
        yield "clip_id is empty; give every clip a name"
    elif not clip_id.isprintable() or len(clip_id) > 200 or set(clip_id) & set("/\\") or clip_id.startswith("."):
        yield f"clip_id {clip_id[:60]!r} cannot name a file; no slashes, control characters or leading dot, 200 letters at most"
    elif clip_id in seen:
        yield f"clip_id {clip_id!r} stands in row {seen[clip_id]} already; give each clip its own"
    if split not in SPLITS:
        yield f"split {split!r} is unknown; use one of {', '.join(SPLITS)}"
    elif split == Split.LABELLED and not label:
        yield f"labelled clip {clip_id!r} has no label; label it, or make its split 'unlabeled'"
    elif split != Split.UNLABELLED and label and label not in emotions.names:
        yield f"label {label[:60]!r} is unknown; emotions.names has {', '.join(emotions.names)}"
    yield from _path_problems(_text(row, "path"), base)


def _path_problems(path: str, base: str) -> Iterator[str]:
    if not path:
        yield "path is empty"
    elif not path.isprintable() or len(path) > 4000 or _PROTOCOL.match(path) or path == "-":
        yield f"path {path[:100]!r} is not a file name; only files below {base} are read"
    else:
        full = os.path.normpath(os.path.join(base, path))
        if not full.startswith(os.path.join(base, "")):
            yield f"path {path!r} leaves {base}; move the file below it or set data.root"
        elif not os.path.lexists(full):
            yield f"path {path!r} does not exist below {base}"


def _clip(row: Row, base: str, emotions: Emotions) -> Clip:
    split = Split(_text(row, "split"))
    label = _text(row, "label") if split is not Split.UNLABELLED else ""
    return Clip(
        clip_id=_text(row, "clip_id"),
        path=os.path.normpath(os.path.join(base, _text(row, "path"))),
        split=split,
        label=emotions.index(label) if label else None,
        group=_text(row, "speaker"),
        transcript=row.get("transcript"),
    )


def _text(row: Row, name: str) -> str:
    return (row.get(name) or "").strip()
