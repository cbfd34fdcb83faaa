"""The champion of a finished run speaks about clips: a split of its corpus, or a folder of videos it has never seen.

    split   ─► stored features ───────────────────────┐
    folder  ─► decode, encode as the run did, store ──┴─► ensemble, calibrated ─► label and probability of each class

A new video passes through the very recipes of the run, so its features are found again when it is asked about twice.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.cluster.corpus import Corpus, gather, groups_of, hinted
from orchestrator.cluster.extract import extract, read_features
from orchestrator.cluster.run import Run, load_student
from orchestrator.cluster.steps import predict
from orchestrator.errors import InputError
from orchestrator.media.digests import with_digests
from orchestrator.rounds.speakers import within_speakers
from orchestrator.settings import Experiment
from orchestrator.stores.artifacts import write_durably
from orchestrator.stores.features import FeatureStore
from orchestrator.stores.tables import write_answers
from orchestrator.vocabulary import Clip, Features, Predictions, Rejected, Split

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m4v"}


def predict_split(experiment: Experiment, split: Split, out: str | None) -> list[Path]:
    """The champion on a split, out of fold on the labelled one; returns the files written. Raises InputError."""
    corpus = gather(experiment)
    run = Run.of(experiment, corpus.identity)
    summary = summary_of(run)
    index = corpus.indices(split)
    folds = corpus.folds if split is Split.LABELLED else np.full(len(index), -1)
    told = answers(experiment, summary, corpus.of(split), folds)
    path = Path(out) if out else run.directory / f"answers-{split.value}"
    return _write(told, [split.value] * len(index), (), experiment, path)


def predict_folder(experiment: Experiment, folder: str, out: str | None) -> list[Path]:
    """The champion on every video below a folder; a `.txt` beside a video is its transcript. Raises InputError."""
    corpus = gather(experiment)
    run = Run.of(experiment, corpus.identity)
    summary = summary_of(run)
    clips = hinted(experiment, with_digests(clips_below(Path(folder)), cache=experiment.store / "digests"))
    store = FeatureStore(experiment.store / "features")
    rejected = extract(clips, corpus.recipes, experiment.decode, Path(folder).resolve(), store, experiment.cluster)
    lost = {row.clip_id for row in rejected}
    usable = [clip for clip in clips if clip.clip_id not in lost]
    features = as_compared(read_features(usable, corpus.recipes, experiment.decode, store), usable, corpus)
    told = answers(experiment, summary, features, np.full(len(usable), -1))
    return _write(told, ["folder"] * len(usable), rejected, experiment, Path(out) if out else run.directory / "answers-folder")


def summary_of(run: Run) -> Mapping[str, Any]:
    """What a finished run wrote about itself. Raises InputError when it has not finished."""
    path = run.directory / "summary.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: run jobs.self_train with the same settings first, the champion comes of it")
    told: dict[str, Any] = json.loads(path.read_text())
    return told


def answers(experiment: Experiment, summary: Mapping[str, Any], features: Features, folds: NDArray[np.int64]) -> Predictions:
    """What a run's champion says, calibrated as in its round; a clip of fold f >= 0 is judged by members that never saw it."""
    told = predict(load_student(experiment.store, summary["champion"]), features, folds, summary["champion"])
    scale, bias = (np.array(summary["calibration"][name], dtype=np.float32) for name in ("scale", "bias"))
    return replace(told, scale=scale, bias=bias)


def clips_below(folder: Path) -> tuple[Clip, ...]:
    """Every video below a folder, named by its path there. Raises InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"job.folder={folder} is not a folder")
    found = sorted(path for path in folder.resolve().rglob("*") if path.suffix.lower() in VIDEOS)
    if not found:
        raise InputError(f"job.folder={folder} holds no video; looked for {', '.join(sorted(VIDEOS))}")
    return tuple(
        Clip(
            clip_id=path.relative_to(folder.resolve()).as_posix(),
            path=str(path),
            split=Split.UNLABELLED,
            transcript=words.read_text(encoding="utf-8-sig").strip() if (words := path.with_suffix(".txt")).is_file() else None,
        )
        for path in found
    )


def as_compared(features: Features, clips: Sequence[Clip], corpus: Corpus) -> Features:
    """New clips on the scale the champion learnt on."""
    return features if corpus.usual is None else within_speakers(features, groups_of(clips), corpus.usual)


def _write(
    told: Predictions, splits: Sequence[str], rejected: Sequence[Rejected], experiment: Experiment, path: Path
) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_answers(path, told, splits, experiment.emotions)
    written = [path.with_suffix(".csv"), path.with_suffix(".parquet")]
    if rejected:
        lines = io.StringIO()
        table = csv.writer(lines)
        table.writerows([("clip_id", "code", "detail"), *((row.clip_id, row.code, row.detail) for row in rejected)])
        written.append(path.with_name(f"{path.name}-rejected.csv"))
        write_durably(written[-1], lines.getvalue().encode())
    return written
