"""What a student learns from: human labels and pseudo-labels as one set of targets.

Human rows keep their frozen fold, so that they are judged out of fold. Pseudo rows carry fold -1: every member learns from them
and none is judged on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Ints, Names, PseudoLabels


@dataclass(frozen=True, slots=True)
class Mixed:
    """Rows to learn from.

    - `targets`: float32 `(N, C)`, rows sum to 1. `weights`: float32 `(N,)`, mean 1 over the human rows.
    - `folds`: `(N,)`, -1 for pseudo-labelled rows.
    """

    clip_ids: Names
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    folds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.clip_ids)


@dataclass(frozen=True, slots=True)
class Mixing:
    """How loudly pseudo-labels speak.

    - `ratio`: total weight of all pseudo-labels over that of all human labels, at most. Without it a pool twenty times as large
      drowns the labels.
    - `each`: weight of one pseudo-label next to one human label, at most.
    - `ramp`: rounds until full weight is reached, linearly; 1 means at once.
    - `balance`: pseudo-labels of every class together weigh the same.
    """

    ratio: float = 4.0
    each: float = 1.0
    ramp: int = 1
    balance: bool = False

    def __post_init__(self) -> None:
        if self.ratio <= 0 or self.each <= 0 or self.ramp < 1:
            raise ValueError(
                f"mixing.ratio and mixing.each must be positive and mixing.ramp at least 1, got {self.ratio}, {self.each}, {self.ramp}"
            )

    def mix(self, clip_ids: Names, truth: Ints, folds: Ints, classes: int, labels: PseudoLabels | None) -> Mixed:
        """Human rows first, then the pseudo-labelled ones in clip order. Raises ValueError for a clip that is both."""
        human = np.eye(classes, dtype=np.float32)[truth]  # (N, C)
        ones = np.ones(len(truth), np.float32)
        if labels is None or not len(labels):
            return Mixed(clip_ids, human, ones, folds.astype(np.int64))
        both = np.intersect1d(clip_ids, labels.clip_ids)
        if len(both):
            raise ValueError(
                f"{len(both)} clip(s) have a human and a pseudo-label, {both[0]!r} first; pseudo-labels are for unlabelled clips"
            )
        return Mixed(
            np.concatenate([clip_ids, labels.clip_ids]),
            np.concatenate([human, labels.targets]),
            np.concatenate([ones, self.weights(labels, len(truth))]),
            np.concatenate([folds, np.full(len(labels), -1)]).astype(np.int64),
        )

    def weights(self, labels: PseudoLabels, humans: int) -> NDArray[np.float32]:
        """Weight of each pseudo-label, `(K,)`."""
        weights = labels.weights.astype(np.float64)
        if self.balance:
            mass = np.bincount(labels.labels, weights=weights, minlength=labels.targets.shape[1])
            share = weights.sum() / max(1, np.count_nonzero(mass))
            weights = weights * share / np.maximum(mass[labels.labels], 1e-12)
        loudness = min(self.each, self.ratio * humans / max(weights.sum(), 1e-12))
        return (weights * loudness * min(1.0, labels.round_index / self.ramp)).astype(np.float32)
