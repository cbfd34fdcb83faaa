"""Correct a teacher's prior, or soften what it says: wrappers around any policy.

Both corrections shift every row's logits by the same class vector, so they live in `Predictions.bias`.

They hurt when their premise is false. `Aligned(to="even")` needs an even pool, `to="labelled"` a pool with the classes of the
labelled clips; with a reversed prior, progressive alignment takes CReST from 80.8 to 68.8 (CIFAR10-LT, USB's table).
`to="pool"` estimates the prior by EM and needs a calibrated teacher, else it amplifies the teacher's own bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.selection import in_clip_order, slices
from orchestrator.seams import SelectionPolicy
from orchestrator.vocabulary import Floats, Ints, Predictions, PseudoLabels, softmax

TARGETS = ("even", "labelled", "pool")
_EM_CLIPS = 100_000


def mean_probability(predictions: Predictions) -> NDArray[np.float64]:
    """Mean of the calibrated probabilities, `(C,)`."""
    total = np.zeros(predictions.logits.shape[1])
    for _, scaled in slices(predictions):
        scaled -= scaled.max(axis=1, keepdims=True)
        np.exp(scaled, out=scaled)
        total += (1.0 / scaled.sum(axis=1)) @ scaled
    return total / max(1, len(predictions))


def prior_by_em(predictions: Predictions, prior: Floats, *, steps: int = 100) -> NDArray[np.float64]:
    """Class shares of the pool `(C,)` by EM (Saerens et al. 2002, eq. 2.9), from a teacher trained under `prior`.

    A hundred thousand evenly spaced clips say as much as all of them.
    """
    every = max(1, len(predictions) // _EM_CLIPS)
    probabilities = predictions.rows(np.arange(0, len(predictions), every)).probabilities  # (n, C)
    estimate = np.asarray(prior, np.float64)
    for _ in range(steps):
        corrected = probabilities * (estimate / np.maximum(prior, 1e-12))
        moved = np.asarray((corrected / corrected.sum(axis=1, keepdims=True)).mean(axis=0))
        if np.abs(moved - estimate).max() < 1e-6:
            return moved
        estimate = moved
    return estimate


def smoothed_prior(truth: Ints, classes: int) -> NDArray[np.float64]:
    """Class shares of human labels with one clip a class added, `(C,)`."""
    counts = np.bincount(truth, minlength=classes) + 1.0
    return np.asarray(counts / counts.sum())


@dataclass(frozen=True, slots=True)
class Aligned:
    """Select from predictions whose class shares were corrected.

    - `to="even"` or `"labelled"`: q' = Norm(q * target / mean q) (ReMixMatch, Berthelot et al. 2020, section 3.1).
    - `to="pool"`: q' = Norm(q * p_pool / p_labelled), the pool's prior by EM (Saerens et al. 2002).
    - `power`: exponent of the correction in round 1, and `last` in round `rounds` and after, linearly between; CReST+'s
      progressive form is 1 to 0.5 on the target (Wei et al. 2021, eq. 3). 0 corrects nothing.
    """

    policy: SelectionPolicy
    to: str = "even"
    power: float = 1.0
    last: float = 1.0
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.to not in TARGETS:
            raise ValueError(f"alignment target must be one of {TARGETS}, got {self.to!r}")
        if not (0 <= self.power <= 1 and 0 <= self.last <= 1) or self.rounds < 1:
            raise ValueError(
                f"alignment power and last must be in [0, 1] and rounds at least 1, got {self.power}, {self.last}, {self.rounds}"
            )

    def aligned(self, pool: Predictions, truth: Ints, round_index: int) -> Predictions:
        """The pool's predictions with the corrected prior in their bias."""
        classes = pool.logits.shape[1]
        if not len(pool):
            return pool
        prior = smoothed_prior(truth, classes)
        if self.to == "pool":
            shift = np.log(np.maximum(prior_by_em(pool, prior), 1e-6) / prior)
        else:
            target = prior if self.to == "labelled" else np.full(classes, 1 / classes)
            shift = np.log(target / np.maximum(mean_probability(pool), 1e-6))
        way = min(1.0, (round_index - 1) / max(1, self.rounds - 1))
        power = self.power + (self.last - self.power) * way
        return replace(pool, bias=(pool.bias + power * shift).astype(np.float32))

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        aligned = self.aligned(pool, truth, round_index)
        labels = self.policy.select(aligned, judged=judged, truth=truth, round_index=round_index)
        shift = np.broadcast_to(aligned.bias - pool.bias, pool.logits.shape[1:]).astype(np.float32)
        return replace(labels, shift=shift if labels.shift is None else shift + labels.shift)


@dataclass(frozen=True, slots=True)
class Soft:
    """The accepted clips with soft targets: Norm(q^(1 / temperature)) (MixMatch, Berthelot et al. 2019, eq. 7); 1 keeps q.

    `weighted` multiplies a clip's weight by the teacher's confidence.
    """

    policy: SelectionPolicy
    temperature: float = 1.0
    weighted: bool = False

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"target temperature must be positive, got {self.temperature}")

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        labels = self.policy.select(pool, judged=judged, truth=truth, round_index=round_index)
        pool = in_clip_order(pool)
        rows = np.searchsorted(pool.clip_ids, labels.clip_ids)
        targets = softmax((pool.logits[rows] * pool.scale + pool.bias) / self.temperature).astype(np.float32)
        weights = labels.weights * labels.confidence if self.weighted else labels.weights
        return replace(labels, targets=targets, weights=weights)
