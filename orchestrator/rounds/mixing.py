"""What the students of a round learn from: human labels and pseudo-labels as one set of targets.

The student of fold f learns from the human labels of the other folds and from the pseudo-labels its own teacher gave; it is
judged on the human labels of fold f. So targets and weights have a fold axis over shared rows: features are stacked once, and a
weight of 0 says "not for this student".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.crossfit import of_fold
from orchestrator.vocabulary import Ints, Names, PseudoLabels


@dataclass(frozen=True, slots=True)
class Mixed:
    """Rows for F students: all human-labelled clips in their order, then every pseudo-labelled clip in clip order.

    - `targets`: float32 `(F, N, C)`, rows sum to 1. `weights`: float32 `(F, N)`, 1 for a human label, 0 for a row that this
      student does not learn from (its own fold, or a clip its teacher did not accept).
    - `folds`: int64 `(N,)`, the fold a human row is judged in, -1 for pseudo-labelled rows.
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

    ratio: float = 3.0
    each: float = 1.0
    ramp: int = 1
    balance: bool = False

    def __post_init__(self) -> None:
        if self.ratio <= 0 or self.each <= 0 or self.ramp < 1:
            got = f"{self.ratio}, {self.each}, {self.ramp}"
            raise ValueError(f"mixing.ratio and mixing.each must be positive and mixing.ramp at least 1, got {got}")

    def mix(self, clip_ids: Names, truth: Ints, folds: Ints, classes: int, labels: PseudoLabels | None) -> Mixed:
        """`truth` and `folds` `(N,)` of the human-labelled clips. Raises ValueError for a clip that has both kinds of label."""
        students = int(folds.max()) + 1
        human = np.repeat(np.eye(classes, dtype=np.float32)[truth][None], students, axis=0)  # (F, N, C)
        learnt = (folds != np.arange(students)[:, None]).astype(np.float32)  # (F, N)
        if labels is None:
            return Mixed(clip_ids, human, learnt, folds.astype(np.int64))
        taught = np.unique(labels.clip_ids)
        both = np.intersect1d(clip_ids, taught)
        if len(both):
            raise ValueError(f"{len(both)} clip(s), {str(both[0])!r} first, have a human label and would get another")
        targets = np.full((students, len(taught), classes), 1 / classes, np.float32)
        weights = np.zeros((students, len(taught)), np.float32)
        for fold in range(students):
            own = of_fold(labels, fold)
            rows = np.searchsorted(taught, own.clip_ids)
            targets[fold, rows] = own.targets
            weights[fold, rows] = self.weights(own, int(learnt[fold].sum()))
        return Mixed(
            np.concatenate([clip_ids, taught]),
            np.concatenate([human, targets], axis=1),
            np.concatenate([learnt, weights], axis=1),
            np.concatenate([folds, np.full(len(taught), -1)]).astype(np.int64),
        )

    def weights(self, labels: PseudoLabels, humans: int) -> NDArray[np.float32]:
        """Weight of each pseudo-label of one student, next to `humans` human labels, `(K,)`."""
        weights = labels.weights.astype(np.float64)
        if self.balance:
            mass = np.bincount(labels.labels, weights=weights, minlength=labels.targets.shape[1])
            share = weights.sum() / max(1, np.count_nonzero(mass))
            weights = weights * share / np.maximum(mass[labels.labels], 1e-12)
        loudness = min(self.each, self.ratio * humans / max(weights.sum(), 1e-12))
        return np.asarray(weights * loudness * min(1.0, labels.round_index / self.ramp), dtype=np.float32)
