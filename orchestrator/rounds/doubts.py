"""Where a human should look next: clips worth labelling, and human labels that look wrong.

    unlabelled  doubt (entropy) + disagreement (voices) + novelty (far from every label)  ->  worth, ranked
    labelled    out-of-fold probabilities against the given label                         ->  suspects, ranked

Both read what a round stores anyway; nothing here changes training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Features, Floats, Predictions

_SLICE = 1 << 12  # pool rows compared with all labelled ones at a time


@dataclass(frozen=True, slots=True)
class Worth:
    """Why the human label of one clip would help; all four in [0, 1].

    `worth` is the mean of the ranks of the other three, so that none of them drowns the rest by its scale.
    """

    clip_id: str
    worth: float
    doubt: float
    disagreement: float
    novelty: float


def worth_labelling(pool: Predictions, *, novelty: Floats | None = None, count: int = 20) -> tuple[Worth, ...]:
    """The `count` clips whose human label would be worth most, best first, ties by clip id. `novelty` `(N,)` from `novelties`."""
    probabilities = pool.probabilities  # (N, C)
    doubt = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1) / np.log(probabilities.shape[1])
    disagreement = _disagreement(pool, probabilities.argmax(axis=1))
    far = np.zeros(len(pool)) if novelty is None else np.asarray(novelty, np.float64)
    parts = [doubt, disagreement] if novelty is None else [doubt, disagreement, far]
    worth = np.mean([_ranks(part) for part in parts], axis=0) if len(pool) else np.zeros(0)
    best = np.lexsort((pool.clip_ids, -np.round(worth, 6)))[:count]
    rows = zip(best, worth[best], doubt[best], disagreement[best], far[best], strict=True)
    return tuple(Worth(str(pool.clip_ids[i]), float(w), float(d), float(v), float(n)) for i, w, d, v, n in rows)


def _disagreement(pool: Predictions, winner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the speaking voices that name another class than the teacher, `(N,)`."""
    if pool.votes is None:
        return np.zeros(len(pool))
    spoke = (pool.votes >= 0).sum(axis=1)
    against = ((pool.votes >= 0) & (pool.votes != winner[:, None])).sum(axis=1)
    return np.asarray(against / np.maximum(spoke, 1))


def _ranks(values: Floats) -> NDArray[np.float64]:
    """Share of values at most as large, in (0, 1]; equal values rank alike."""
    ordered = np.sort(np.round(values, 6))
    return np.searchsorted(ordered, np.round(values, 6), side="right") / len(values)


def novelties(pool: Features, labelled: Features) -> NDArray[np.float64]:
    """Distance `(N,)` of each pool clip to its nearest labelled clip: 1 - cosine of standardised features, halved, mean over the
    streams both have. A clip of which nothing is present is as novel as can be: 1."""
    total, streams = np.zeros(len(pool)), np.zeros(len(pool))
    for column, stream in enumerate(pool.streams):
        known, asked = labelled.present[:, column], np.flatnonzero(pool.present[:, column])
        if known.any() and len(asked):
            total[asked] += _to_nearest(pool.values[stream][asked], labelled.values[stream][known])
            streams[asked] += 1
    return np.where(streams > 0, total / np.maximum(streams, 1), 1.0)


def _to_nearest(asked: Floats, known: Floats) -> NDArray[np.float64]:
    mean, deviation = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1.0
    anchors = _directions(known, mean, deviation)
    nearest = [
        (_directions(asked[first : first + _SLICE], mean, deviation) @ anchors.T).max(axis=1)
        for first in range(0, len(asked), _SLICE)
    ]
    return np.clip((1 - np.concatenate(nearest)) / 2, 0.0, 1.0)


def _directions(values: Floats, mean: Floats, deviation: Floats) -> NDArray[np.float64]:
    rows = (values - mean) / deviation
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True, slots=True)
class Suspect:
    """A human label that looks wrong: `margin` is how much likelier the suggested class is, out of fold, in (0, 1]."""

    clip_id: str
    given: int
    suggested: int
    margin: float


def suspects(judged: Predictions, truth: NDArray[np.int64]) -> tuple[Suspect, ...]:
    """Human labels off the diagonal of the confident joint, worst first (Northcutt et al. 2021, eqs. 1 and 2).

    A clip counts as class j when p_j reaches the mean p_j of the clips labelled j; among several, the likeliest. `judged` must
    be out of fold and calibrated. Finds nothing about a class nobody labelled.
    """
    probabilities = judged.probabilities  # (N, C)
    labelled = np.bincount(truth, minlength=probabilities.shape[1])
    sums = np.bincount(truth, weights=probabilities[np.arange(len(truth)), truth], minlength=len(labelled))
    usual = np.where(labelled > 0, sums / np.maximum(labelled, 1), np.inf)  # (C,)
    confident = np.where(probabilities >= usual, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    margin = probabilities.max(axis=1) - probabilities[np.arange(len(truth)), truth]
    wrong = np.flatnonzero((confident.max(axis=1) >= 0) & (suggested != truth) & (margin > 0))
    worst = wrong[np.lexsort((judged.clip_ids[wrong], -np.round(margin[wrong], 6)))]
    return tuple(Suspect(str(judged.clip_ids[i]), int(truth[i]), int(suggested[i]), float(margin[i])) for i in worst)
