"""What each fold's student learns from: human labels and pseudo-labels as one set of targets.

The student of fold f learns from the human labels of the other folds and from the pseudo-labels its own teacher gave; it is
judged on the human labels of fold f.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.crossfit import of_fold
from orchestrator.vocabulary import Bools, Ints, Names, PseudoLabels


@dataclass(frozen=True, slots=True)
class Mixed:
    """Rows of one fold: all human-labelled clips in their order, then the pseudo-labelled ones in clip order.

    - `targets`: float32 `(N, C)`, rows sum to 1. `weights`: float32 `(N,)`, 1 for a human label.
    - `held_out`: bool `(N,)`, the human rows of this fold: judged, never learnt from.
    """

    clip_ids: Names
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    held_out: Bools

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
            got = f"{self.ratio}, {self.each}, {self.ramp}"
            raise ValueError(f"mixing.ratio and mixing.each must be positive and mixing.ramp at least 1, got {got}")

    def mix(self, clip_ids: Names, truth: Ints, folds: Ints, classes: int, labels: PseudoLabels | None) -> tuple[Mixed, ...]:
        """One set of rows a fold. Raises ValueError for a clip that has both kinds of label."""
        human = np.eye(classes, dtype=np.float32)[truth]  # (N, C)
        ones = np.ones(len(truth), np.float32)
        if labels is None:
            return tuple(Mixed(clip_ids, human, ones, folds == fold) for fold in range(int(folds.max()) + 1))
        both = np.intersect1d(clip_ids, labels.clip_ids)
        if len(both):
            raise ValueError(f"{len(both)} clip(s), {both[0]!r} first, have a human label and would get a pseudo-label as well")
        return tuple(self._of_fold(clip_ids, human, folds == fold, of_fold(labels, fold)) for fold in range(int(folds.max()) + 1))

    def _of_fold(self, clip_ids: Names, human: NDArray[np.float32], held_out: Bools, labels: PseudoLabels) -> Mixed:
        return Mixed(
            np.concatenate([clip_ids, labels.clip_ids]),
            np.concatenate([human, labels.targets]),
            np.concatenate([np.ones(len(human), np.float32), self.weights(labels, int((~held_out).sum()))]),
            np.concatenate([held_out, np.zeros(len(labels), dtype=bool)]),
        )

    def weights(self, labels: PseudoLabels, humans: int) -> NDArray[np.float32]:
        """Weight of each pseudo-label, `(K,)`."""
        weights = labels.weights.astype(np.float64)
        if self.balance:
            mass = np.bincount(labels.labels, weights=weights, minlength=labels.targets.shape[1])
            share = weights.sum() / max(1, np.count_nonzero(mass))
            weights = weights * share / np.maximum(mass[labels.labels], 1e-12)
        loudness = min(self.each, self.ratio * humans / max(weights.sum(), 1e-12))
        return np.asarray(weights * loudness * min(1.0, labels.round_index / self.ramp), dtype=np.float32)
