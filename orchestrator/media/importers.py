"""Corpora as they are published, to a manifest. Nothing is copied: the paths start from the corpus's own folder.

python -m orchestrator.media.importers mer2024 /data/mer2024-dataset --out /data/mer2024-dataset/manifest.csv
python -m orchestrator.media.importers ravdess /data/RAVDESS --out ravdess.csv          then: data.root=/data/RAVDESS
python -m orchestrator.media.importers folders /data/clips --out clips.csv
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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


def mer2024(
    directory: str | Path,
    *,
    language: Literal["chinese", "english"] = "chinese",
    candidates: Literal["unlabeled", "test"] = "unlabeled",
) -> Iterator[Row]:
    """The challenge's release: `video-labeled`, `video-unlabeled-*`, `label-disdim.csv`, and what there is of transcripts.

    The clips of `candidate_20000.csv`, which a submission must name, go to the split `candidates`: "unlabeled" to learn from
    them, "test" to leave them alone. Raises ManifestError naming the files that are missing.
    """
    directory = Path(directory)
    labels = {row["name"]: row["discrete"] for row in _table(directory / "label-disdim.csv")}
    words: dict[str, str] = {}
    for name in _TRANSCRIPTS:
        if (directory / name).is_file():
            words |= {row["name"]: row.get(language) or "" for row in _table(directory / name)}
    asked = {row["name"] for file in directory.rglob("candidate*.csv") for row in _table(file)}
    labelled = {path.stem: path for path in _videos(directory / "video-labeled")}
    missing = sorted(labels.keys() - labelled.keys())
    if missing:
        problems = [f"{name!r} has a label but no video in video-labeled" for name in missing]
        raise ManifestError(str(directory / "label-disdim.csv"), problems)
    for name, label in labels.items():
        yield _row(name, labelled[name], directory, "labeled", label, transcript=words.get(name))
    for folder in sorted(directory.glob("video-unlabeled*")):
        for path in _videos(folder):
            yield _row(
                path.stem, path, directory, candidates if path.stem in asked else "unlabeled", transcript=words.get(path.stem)
            )


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


def main() -> None:
    """The command of the header."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("mer2024", "ravdess", "folders"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if not asked.directory.is_dir():
        parser.error(f"{asked.directory} is not a directory")
    importers: dict[str, Callable[[Path], Iterator[Row]]] = {"mer2024": mer2024, "ravdess": ravdess, "folders": folder_per_class}
    path = write_manifest(asked.out, importers[asked.corpus](asked.directory))
    elsewhere = "" if path.parent.resolve() == asked.directory.resolve() else f" data.root={asked.directory}"
    print(f"written: {path}; use it with data.manifest={path}{elsewhere}")


if __name__ == "__main__":
    main()
