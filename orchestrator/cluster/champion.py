"""The champion of a finished run speaks about clips: a split of its corpus, or videos it has never seen.

    split   ─► stored features ───────────────────────┐
    videos  ─► decode, encode as the run did, store ──┴─► ensemble, calibrated ─► label and probability of each class

A new video passes through the very recipes of the run, so its features are found again when it is asked about twice. It needs the
store alone: the clips the champion learnt from may be gone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.cluster.corpus import gather, groups_of, hinted, read_clips
from orchestrator.cluster.explain import finished_rounds
from orchestrator.cluster.extract import extract, read_features
from orchestrator.cluster.ledger import RoundLedger
from orchestrator.cluster.run import Run, load_student
from orchestrator.cluster.steps import predict
from orchestrator.encoders.clip import OpenClip
from orchestrator.encoders.emovclip import TunedClip
from orchestrator.errors import InputError
from orchestrator.media.digests import with_digests
from orchestrator.media.scanning import declared_frames
from orchestrator.rounds.crossfit import combined
from orchestrator.rounds.speakers import Usual, within_speakers
from orchestrator.seams import EncoderRecipe
from orchestrator.settings import Experiment
from orchestrator.stores.artifacts import write_durably
from orchestrator.stores.exchange import check_submission, read_candidates, write_merr, write_submission
from orchestrator.stores.features import FeatureStore
from orchestrator.stores.runs import SUMMARY, find_run, read_about
from orchestrator.stores.tables import write_answers
from orchestrator.vocabulary import Clip, Features, Predictions, Rejected, Split, Verdict

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m4v"}
USUAL = "usual.npz"


def predict_split(experiment: Experiment, clips: Sequence[Clip], split: Split, out: str | None) -> list[Path]:
    """The champion on a split, out of fold on the labelled one; returns the files written. Raises InputError."""
    corpus = gather(experiment, clips)
    run = Run.of(experiment, corpus)
    index = corpus.indices(split)
    folds = corpus.folds if split is Split.LABELLED else np.full(len(index), -1)
    told = answers(experiment, read_about(run.directory, SUMMARY), corpus.of(split), folds)
    path = Path(out) if out else run.directory / f"answers-{split.value}"
    return _write(told, [split.value] * len(index), (), experiment, path)


def predict_candidates(experiment: Experiment, clips: Sequence[Clip], candidates: Path, out: str | None) -> list[Path]:
    """The challenge submission: the champion's label of exactly the named clips, in their order. Raises InputError."""
    names = read_candidates(candidates)
    corpus = gather(experiment, clips)
    run = Run.of(experiment, corpus)
    folds = np.full(len(corpus.clips), -1)
    folds[corpus.indices(Split.LABELLED)] = corpus.folds
    asked = np.flatnonzero(np.isin(corpus.features.clip_ids, names))
    told = answers(experiment, read_about(run.directory, SUMMARY), corpus.features.rows(asked), folds[asked])
    path = Path(out) if out else run.directory / "submission.csv"
    write_submission(path, told, names, experiment.emotions)
    check_submission(path, names, experiment.emotions)
    return [path]


def predict_videos(experiment: Experiment, settings: Mapping[str, Any], videos: Path, out: str | None) -> list[Path]:
    """The champion on one video or every video below a folder; a `.txt` beside one is its transcript. Raises InputError."""
    run = find_run(experiment.store, settings)
    summary = read_about(run, SUMMARY)
    root = videos if videos.is_dir() else videos.parent
    clips = hinted(experiment, with_digests(clips_at(videos), cache=experiment.store / "digests"))
    store, recipes = FeatureStore(experiment.feature_store), recipes_of(experiment, summary)
    rejected = extract(clips, recipes, experiment.decode, root.resolve(), store, experiment.cluster)
    lost = {row.clip_id for row in rejected}
    usable = [clip for clip in clips if clip.clip_id not in lost]
    if not usable:
        raise InputError(f"none of {len(clips)} videos can be used; first {rejected[0].clip_id}: {rejected[0].detail}")
    features = read_features(usable, recipes, experiment.decode, store)
    if (run / USUAL).is_file():
        features = within_speakers(features, groups_of(usable), read_usual(run / USUAL))
    told = answers(experiment, summary, features, np.full(len(usable), -1))
    return _write(told, ["video"] * len(usable), rejected, experiment, Path(out) if out else run / "answers-videos")


def export_pseudo_labels(experiment: Experiment, settings: Mapping[str, Any], path: Path) -> list[Path]:
    """The labels of the last round that stands, one a clip, as Emotion-LLaMA's lines `name frames label`. Raises InputError."""
    run = find_run(experiment.store, settings)
    ledger = RoundLedger(run)
    taught = [about["index"] for _, about in finished_rounds(run) if about["index"] and about["verdict"] != Verdict.REJECTED]
    labels = ledger.labels(taught[-1]) if taught else None
    if labels is None:
        raise InputError(f"{run.name} has no round of pseudo-labels that was not rejected: there is nothing to export")
    single = combined(labels, 1)
    paths = {clip.clip_id: Path(clip.path) for clip in read_clips(experiment)}
    rows = zip(single.clip_ids.tolist(), single.labels.tolist(), strict=True)
    write_merr(path, ((name, declared_frames(paths[name]), experiment.emotions.names[label]) for name, label in rows))
    return [path]


def recipes_of(experiment: Experiment, summary: Mapping[str, Any]) -> tuple[EncoderRecipe, ...]:
    """The encoders a run learnt from: the experiment's, with the prompts it tuned."""
    encoders = dict(experiment.encoders)
    base = encoders.get("video")
    if summary["tuned"]:
        assert isinstance(base, OpenClip), "prompts are tuned on an open_clip encoder"
        encoders["video"] = TunedClip(checkpoint=summary["tuned"], base=base, stream=base.stream)
    return tuple(encoders.values())


def answers(experiment: Experiment, summary: Mapping[str, Any], features: Features, folds: NDArray[np.int64]) -> Predictions:
    """What a run's champion says, calibrated as in its round; a clip of fold f >= 0 is judged by members that never saw it."""
    told = predict(load_student(experiment.store, summary["champion"]), features, folds, summary["champion"])
    scale, bias = (np.array(summary["calibration"][name], dtype=np.float32) for name in ("scale", "bias"))
    return replace(told, scale=scale, bias=bias)


def clips_at(videos: Path) -> tuple[Clip, ...]:
    """One video, or every video below a folder, named by its path there. Raises InputError when there is none."""
    if videos.is_file():
        found, root = [videos.resolve()], videos.resolve().parent
    elif videos.is_dir():
        root = videos.resolve()
        found = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    else:
        raise InputError(f"job.videos={videos} is neither a video nor a folder of videos")
    if not found:
        raise InputError(f"job.videos={videos} holds no video; looked for {', '.join(sorted(VIDEOS))}")
    return tuple(
        Clip(
            clip_id=path.relative_to(root).as_posix(),
            path=str(path),
            split=Split.UNLABELLED,
            transcript=words.read_text(encoding="utf-8-sig").strip() if (words := path.with_suffix(".txt")).is_file() else None,
        )
        for path in found
    )


def write_usual(path: Path, usual: Usual) -> None:
    """Keep what new clips are compared with."""
    arrays = {f"{part} {stream}": values for part in ("mean", "variance") for stream, values in getattr(usual, part).items()}
    kept = io.BytesIO()
    np.savez(kept, allow_pickle=False, **arrays)
    write_durably(path, kept.getvalue())


def read_usual(path: Path) -> Usual:
    """What `write_usual` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        mean, variance = (
            {name.removeprefix(f"{part} "): arrays[name] for name in arrays.files if name.startswith(f"{part} ")}
            for part in ("mean", "variance")
        )
    return Usual(mean, variance)


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
