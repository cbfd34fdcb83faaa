"""Real features as scenarios of self-training: who is labelled, who is the pool, who is tested, and what goes wrong.

    corpus (every label known)  ──►  speakers to train and to test on  ──►  labels drawn  ──►  Scenario

- RAVDESS: `features.npz` with `id`, `actor`, `emotion`, `au` `(N, 35)` and `whisper_tiny_en` `(N, layers, 768)`. Actors by threes
  are the test actors of one fold each.
- trimodal: an `npz` with `clip_id`, `video`, `audio`, `text`, beside a manifest and `truth.csv`. Modalities are independent given
  the label there, which flatters fusion.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Features, Names

KINDS = ("friendly", "flipped skew", "unknown class", "wrong labels", "half blind")
WHISPER_LAYER = 2  # the third


@dataclass(frozen=True, slots=True)
class Corpus:
    """Features of N clips with every label known; -1 is a class outside the label set."""

    features: Features
    labels: NDArray[np.int64]
    groups: Names
    classes: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Rows of the human-labelled, unlabelled and test clips of a corpus, and the labels the humans gave."""

    name: str
    corpus: Corpus
    labelled: NDArray[np.int64]
    pool: NDArray[np.int64]
    test: NDArray[np.int64]
    given: NDArray[np.int64]


def ravdess(path: Path) -> Corpus:
    """Clips sorted by id; action units as video, the deviations and means of Whisper's third layer as audio."""
    stored = np.load(path, allow_pickle=False)
    order = np.argsort(stored["id"], kind="stable")
    values = {"video": stored["au"][order].astype(np.float32)}
    values["audio"] = stored["whisper_tiny_en"][order, WHISPER_LAYER].astype(np.float32)
    features = Features(stored["id"][order], values, np.ones((len(order), 2), dtype=bool))
    groups = np.array([f"actor{actor:02d}" for actor in stored["actor"][order]])
    labels = np.unique(stored["emotion"][order], return_inverse=True)[1]
    return Corpus(features, labels, groups, int(labels.max()) + 1)


def speaker_folds(corpus: Corpus, dev: bool) -> Iterator[tuple[int, Names, Names]]:
    """Fold number, training speakers and three test speakers; `dev` tests on 3 of the training speakers instead."""
    speakers = np.unique(corpus.groups)
    for fold in range(len(speakers) // 3):
        tested = speakers[3 * fold : 3 * fold + 3]
        trained = np.setdiff1d(speakers, tested)
        if dev:
            trained = np.random.default_rng(77 + fold).permutation(trained)
            trained, tested = trained[3:], trained[:3]
        yield fold, trained, tested


def draw(kind: str, corpus: Corpus, trained: Names, tested: Names, each: int, seed: int) -> Scenario:
    """Labels of `each` clips a class, a pool and a test set; what `kind` says goes wrong with the first two."""
    rng = np.random.default_rng([seed, each, KINDS.index(kind)])
    rows, test = np.flatnonzero(np.isin(corpus.groups, trained)), np.flatnonzero(np.isin(corpus.groups, tested))
    if kind == "unknown class":
        return _with_unknown_class(corpus, rows, test, each, rng)
    wanted, kept = np.full(corpus.classes, each), np.ones(corpus.classes)
    if kind == "flipped skew":  # the classes humans labelled most are the rarest of the pool
        order = rng.permutation(corpus.classes)
        wanted = np.maximum(2, np.round(each * np.linspace(1.6, 0.4, corpus.classes)[order])).astype(int)
        kept = np.linspace(0.1, 1.0, corpus.classes)[order]
    labelled, pool = [], []
    for label in range(corpus.classes):
        own = rng.permutation(rows[corpus.labels[rows] == label])
        taken = min(int(wanted[label]), len(own) - 2)
        labelled += own[:taken].tolist()
        pool += own[taken : taken + max(1, round(kept[label] * (len(own) - taken)))].tolist()
    given = corpus.labels[np.sort(labelled)]
    if kind == "wrong labels":
        wrong = rng.permutation(len(given))[: round(0.2 * len(given))]
        given[wrong] = (given[wrong] + rng.integers(1, corpus.classes, len(wrong))) % corpus.classes
    if kind == "half blind":  # one modality is missing in half of the pool
        present = corpus.features.present.copy()
        present[rng.permutation(pool)[: len(pool) // 2], rng.integers(present.shape[1])] = False
        corpus = replace(corpus, features=replace(corpus.features, present=present))
    return Scenario(kind, corpus, np.sort(labelled), np.sort(pool), test, given)


def _with_unknown_class(
    corpus: Corpus, rows: NDArray[np.int64], test: NDArray[np.int64], each: int, rng: np.random.Generator
) -> Scenario:
    """One class is nobody's label, and 30 % of the pool."""
    unknown = int(rng.integers(corpus.classes))
    labels = np.where(corpus.labels == unknown, -1, corpus.labels - (corpus.labels > unknown))
    labelled = np.concatenate([rng.permutation(rows[labels[rows] == label])[:each] for label in range(corpus.classes - 1)])
    strangers, known = rows[labels[rows] == -1], np.setdiff1d(rows[labels[rows] >= 0], labelled)
    pool = np.concatenate([strangers, rng.permutation(known)[: int(len(strangers) * 7 / 3)]])
    smaller = Corpus(corpus.features, labels, corpus.groups, corpus.classes - 1)
    labelled = np.sort(labelled)
    return Scenario("unknown class", smaller, labelled, np.sort(pool), test[labels[test] >= 0], labels[labelled])


def trimodal(path: Path, clips: Path) -> tuple[Corpus, Names]:
    """Corpus and the split of each clip as the manifest in `clips` has it."""
    stored = np.load(path, allow_pickle=False)
    with open(clips / "manifest.csv", newline="") as manifest, open(clips / "truth.csv", newline="") as truths:
        listed = {row["clip_id"]: row for row in csv.DictReader(manifest)}
        truth = {row["clip_id"]: row["label"] for row in csv.DictReader(truths)}
    ids = stored["clip_id"]
    names = sorted(set(truth.values()))
    values = {stream: stored[stream].astype(np.float32) for stream in ("video", "audio", "text")}
    features = Features(ids, values, np.ones((len(ids), 3), dtype=bool))
    labels = np.array([names.index(truth[name]) for name in ids])
    groups = np.array([listed[name]["speaker"] for name in ids])
    return Corpus(features, labels, groups, len(names)), np.array([listed[name]["split"] for name in ids])


def trimodal_split(corpus: Corpus, given: Names, number: int) -> Scenario:
    """Split 0 is the manifest's; the others swap test speakers and draw as many labels, of the manifest's class shares."""
    rows = {split: np.flatnonzero(given == split) for split in ("labeled", "unlabeled", "test")}
    if number:
        rng = np.random.default_rng(number)
        speakers = rng.permutation(np.unique(corpus.groups))
        trained = np.flatnonzero(~np.isin(corpus.groups, speakers[:3]))
        counts = np.bincount(corpus.labels[rows["labeled"]], minlength=corpus.classes)
        drawn = [rng.permutation(trained[corpus.labels[trained] == label])[:count] for label, count in enumerate(counts)]
        rows["test"], rows["labeled"] = np.setdiff1d(np.arange(len(given)), trained), np.sort(np.concatenate(drawn))
        rows["unlabeled"] = np.setdiff1d(trained, rows["labeled"])
    name = f"other {number}" if number else "as given"
    return Scenario(name, corpus, rows["labeled"], rows["unlabeled"], rows["test"], corpus.labels[rows["labeled"]])
