"""Corpora as they are published, to the rows of a manifest. Nothing is copied: the paths start from the corpus's own folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

from orchestrator.errors import ManifestError
from orchestrator.media.manifest import OPTIONAL, REQUIRED

VIDEOS: Final = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".ts")
RAVDESS_EMOTIONS: Final = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # codes 01 to 08
RAVDESS_LINES: Final = ("Kids are talking by the door.", "Dogs are sitting by the door.")
AS_MER2024: Final = {
    "neutral": "neutral",
    "calm": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fearful": "worried",
    "surprised": "surprise",
}
_TRANSCRIPTS = ("label-transcription.csv", "transcription-merge.csv", "subtitle_chieng.csv")
Row = Mapping[str, str]
Corpus = Literal["mer2024", "mertools", "ravdess", "folders"]
Candidates = Literal["unlabeled", "test"]
Language = Literal["chinese", "english"]


def read_corpus(
    corpus: Corpus, directory: Path, *, language: Language, candidates: Candidates, labels: Mapping[str, str]
) -> list[Row]:
    """Rows of a corpus by the name of its form; `labels` are those of MERTools' own label file. Raises ManifestError."""
    if not directory.is_dir():
        raise ManifestError(str(directory), ["it is not a directory"])
    if corpus == "mer2024":
        return list(mer2024(directory, language=language, candidates=candidates))
    if corpus == "mertools":
        return list(mertools(directory, labels, language=language))
    return list(ravdess(directory) if corpus == "ravdess" else folder_per_class(directory))


def mer2024(
    directory: str | Path,
    *,
    language: Language = "chinese",
    candidates: Candidates = "unlabeled",
) -> Iterator[Row]:
    """The challenge's release: `video-labeled`, `video-unlabeled-*`, `label-disdim.csv`, and what there is of transcripts.

    The clips of `candidate_20000.csv`, which a submission must name, go to the split `candidates`: "unlabeled" to learn from
    them, "test" to leave them alone. Raises ManifestError naming the files that are missing.
    """
    directory = Path(directory)
    labels = {row["name"]: row["discrete"] for row in _table(directory / "label-disdim.csv")}
    words = _transcripts(directory, language)
    asked = {row["name"] for file in directory.rglob("candidate*.csv") for row in _table(file)}
    labelled = {path.stem: path for path in _videos(directory / "video-labeled")}
    _check_videos(directory / "video-labeled", labels, labelled)
    for name, label in labels.items():
        yield _row(name, labelled[name], directory, "labeled", label, transcript=words.get(name))
    for folder in sorted(directory.glob("video-unlabeled*")):
        for path in _videos(folder):
            yield _row(
                path.stem, path, directory, candidates if path.stem in asked else "unlabeled", transcript=words.get(path.stem)
            )


def mertools(directory: Path, labels: Mapping[str, str], *, language: Language = "chinese") -> Iterator[Row]:
    """What MERTools' preprocessing leaves: `video/<name>.*` and transcripts; clips without a label are the pool.

    Raises ManifestError naming the labelled clips that have no video.
    """
    videos = {path.stem: path for path in _videos(directory / "video")}
    _check_videos(directory / "video", labels, videos)
    words = _transcripts(directory, language)
    for name, path in videos.items():
        split = "labeled" if name in labels else "unlabeled"
        yield _row(name, path, directory, split, labels.get(name, ""), transcript=words.get(name))


def folder_per_class(directory: str | Path) -> Iterator[Row]:
    """`<class>/*.mp4` are labelled, `unlabeled/*.mp4` the pool, `test/<class>/*.mp4` or `test/*.mp4` the test clips."""
    directory = Path(directory)
    for path in _videos(directory):
        *folders, _ = path.relative_to(directory).parts
        clip_id = "-".join((*folders, path.stem))
        match folders:
            case ["unlabeled", *_]:
                yield _row(clip_id, path, directory, "unlabeled")
            case ["test", *rest]:
                yield _row(clip_id, path, directory, "test", rest[0] if rest else "")
            case [label, *_]:
                yield _row(clip_id, path, directory, "labeled", label)


def ravdess(
    directory: str | Path,
    *,
    labels: Mapping[str, str] = AS_MER2024,
    unlabelled_actors: Collection[int] = tuple(range(9, 21)),
    test_actors: Collection[int] = (21, 22, 23, 24),
) -> Iterator[Row]:
    """RAVDESS by its file names (Livingstone & Russo 2018): spoken clips with picture and sound, split by actor.

    `labels` renames its eight emotions; an emotion it lacks is left out, as disgust is by default.
    """
    directory = Path(directory)
    for path in _videos(directory):
        parts = path.stem.split("-")
        if len(parts) != 7 or not all(part.isdigit() for part in parts):
            continue
        modality, channel, emotion, _, statement, _, actor = (int(part) for part in parts)
        label = labels.get(RAVDESS_EMOTIONS[emotion - 1]) if 1 <= emotion <= len(RAVDESS_EMOTIONS) else None
        if modality != 1 or channel != 1 or label is None:  # 2 is the same take without sound
            continue
        split = "test" if actor in test_actors else "unlabeled" if actor in unlabelled_actors else "labeled"
        line = RAVDESS_LINES[statement - 1]
        yield _row(path.stem, path, directory, split, "" if split == "unlabeled" else label, f"{actor:02d}", line)


def write_manifest(path: str | Path, rows: Iterable[Row]) -> Path:
    """Write rows as CSV, whole or not at all. Raises ManifestError when there are none."""
    path = Path(path)
    found = list(rows)
    if not found:
        raise ManifestError(str(path), [f"no clip was found; videos end in {', '.join(VIDEOS)}"])
    staged = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    with staged.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*REQUIRED, *OPTIONAL))
        writer.writeheader()
        writer.writerows(found)
    staged.replace(path)
    return path


def _row(
    clip_id: str, path: Path, root: Path, split: str, label: str = "", speaker: str = "", transcript: str | None = None
) -> dict[str, str]:
    values = (clip_id, path.relative_to(root).as_posix(), split, label, speaker, transcript or "")
    return dict(zip((*REQUIRED, *OPTIONAL), values, strict=True))


def _check_videos(folder: Path, labels: Mapping[str, str], videos: Mapping[str, Path]) -> None:
    if missing := sorted(labels.keys() - videos.keys()):
        raise ManifestError(str(folder), [f"{name!r} has a label but no video here" for name in missing])


def _transcripts(directory: Path, language: Language) -> dict[str, str]:
    """What each clip's speaker says, of the tables there are; the later, cleaner ones win."""
    tables = [directory / name for name in _TRANSCRIPTS if (directory / name).is_file()]
    return {row["name"]: row.get(language) or "" for table in tables for row in _table(table)}


def _videos(directory: Path) -> Iterator[Path]:
    """Video files below a folder, in the order of their names."""
    for folder, folders, files in os.walk(directory):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(files) if name.lower().endswith(VIDEOS) and not name.startswith("."))


def _table(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "name" not in (rows.fieldnames or ()):
                raise ManifestError(str(path), [f"column 'name' is missing; the header is {rows.fieldnames}"])
            yield from rows
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(str(path), [f"it cannot be read: {error}"]) from error
