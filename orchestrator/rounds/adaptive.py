"""Thresholds that move while training goes on: FlexMatch, FreeMatch, SoftMatch.

Each has a state with one pure step a batch, equal to the papers' formulas, and a policy that takes the rounds as its steps: in
round r the teacher's whole pool has been the batch r times. So a policy needs no memory and a resumed run finds its thresholds
again. An empty batch changes nothing; a batch of one has no variance and leaves the old one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.alignment import Aligned, mean_probability
from orchestrator.rounds.selection import accept, in_clip_order, reaching, winners
from orchestrator.vocabulary import Floats, Ints, Predictions, PseudoLabels


@dataclass(frozen=True, slots=True)
class FlexState:
    """FlexMatch (Zhang et al. 2021): what each of N clips was last taken for with confidence, `(N,)`, -1 for never."""

    taken_for: NDArray[np.int64]
    classes: int

    @staticmethod
    def start(clips: int, classes: int) -> FlexState:
        return FlexState(np.full(clips, -1), classes)

    def step(self, rows: Ints, labels: Ints, confidence: Floats, threshold: float) -> FlexState:
        """One batch: `rows` `(B,)` of the pool with their winning class and its probability (eq. 5)."""
        sure = confidence >= threshold
        taken_for = self.taken_for.copy()
        taken_for[rows[sure]] = labels[sure]
        return replace(self, taken_for=taken_for)

    def thresholds(self, threshold: float) -> NDArray[np.float64]:
        """`(C,)`: tau * beta / (2 - beta), beta = sigma / max(max sigma, never taken), eqs. 6, 7 (warm-up) and 11."""
        sigma = np.bincount(self.taken_for[self.taken_for >= 0], minlength=self.classes)
        beta = sigma / max(1, sigma.max(initial=0), int((self.taken_for < 0).sum()))
        return np.asarray(threshold * beta / (2 - beta))


@dataclass(frozen=True, slots=True)
class FreeState:
    """FreeMatch (Wang et al. 2023): global threshold `overall` and local expectations `expected` `(C,)`."""

    overall: float
    expected: NDArray[np.float64]

    @staticmethod
    def start(classes: int) -> FreeState:
        return FreeState(1 / classes, np.full(classes, 1 / classes))

    def step(self, mean_confidence: float, mean_probabilities: Floats, momentum: float) -> FreeState:
        """One batch by its mean top probability and mean probabilities `(C,)` (eqs. 5 and 6)."""
        if not np.isfinite(mean_confidence):
            return self
        overall = momentum * self.overall + (1 - momentum) * mean_confidence
        return FreeState(overall, momentum * self.expected + (1 - momentum) * mean_probabilities)

    def thresholds(self) -> NDArray[np.float64]:
        """`(C,)`: MaxNorm(expected) * overall (eq. 7)."""
        return np.asarray(self.overall * self.expected / self.expected.max())


@dataclass(frozen=True, slots=True)
class SoftState:
    """SoftMatch (Chen et al. 2023): mean and variance of the confidence."""

    mean: float
    variance: float = 1.0

    @staticmethod
    def start(classes: int) -> SoftState:
        return SoftState(1 / classes)

    def step(self, confidence: Floats, momentum: float) -> SoftState:
        """One batch of top probabilities `(B,)` (eqs. 8 and 9, the variance unbiased)."""
        if not len(confidence):
            return self
        mean = momentum * self.mean + (1 - momentum) * float(confidence.mean(dtype=np.float64))
        if len(confidence) == 1:
            return SoftState(mean, self.variance)
        return SoftState(mean, momentum * self.variance + (1 - momentum) * float(confidence.var(ddof=1, dtype=np.float64)))

    def weights(self, confidence: Floats, deviations: float = 2.0) -> NDArray[np.float32]:
        """Truncated Gaussian (eq. 7), 1 at and above the mean; `deviations` narrows it as in the authors' code."""
        below = np.minimum(confidence - self.mean, 0.0)
        return np.asarray(np.exp(-(below**2) * deviations**2 / (2 * max(self.variance, 1e-12))), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class FlexMatch:
    """A fixed threshold that is lowered for classes the teacher is seldom sure of (Zhang et al. 2021).

    Unstable on audio in USB's tables, where the supervised model beats it on GTZAN.
    """

    threshold: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"selection.threshold must be in (0, 1], got {self.threshold}")

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        pool = in_clip_order(pool)
        top = winners(pool)
        state = FlexState.start(len(pool), pool.logits.shape[1])
        state = state.step(np.arange(len(pool)), top.labels, top.confidence, self.threshold)
        thresholds = state.thresholds(self.threshold)
        return accept(pool, top.confidence >= thresholds[top.labels], top, thresholds, round_index)


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise ValueError(f"selection.momentum must be in [0, 1), got {momentum}")


@dataclass(frozen=True, slots=True)
class FreeMatch:
    """Thresholds that follow the teacher's own confidence, per class (Wang et al. 2023).

    `momentum` is per round: the paper's 0.999 is per batch and would never leave its start in a handful of rounds.
    """

    momentum: float = 0.5

    def __post_init__(self) -> None:
        _check_momentum(self.momentum)

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        state = FreeState.start(pool.logits.shape[1])
        if len(pool):
            mean = mean_probability(pool)
            confidence = float(winners(pool).confidence.mean(dtype=np.float64))
            for _ in range(round_index):
                state = state.step(confidence, mean, self.momentum)
        return reaching(pool, state.thresholds(), round_index)


@dataclass(frozen=True, slots=True)
class SoftMatch:
    """Everybody is accepted, with a weight that falls below the mean confidence (Chen et al. 2023).

    `aligned` reads the confidence for the weights from predictions aligned to even classes, the labels from the unaligned ones
    (eq. 11), which is right when the pool is about even. `momentum` is per round.
    """

    momentum: float = 0.5
    deviations: float = 2.0
    aligned: bool = True

    def __post_init__(self) -> None:
        _check_momentum(self.momentum)
        if self.deviations <= 0:
            raise ValueError(f"selection.deviations must be positive, got {self.deviations}")

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        pool = in_clip_order(pool)
        top = winners(pool)
        level = Aligned(self).aligned(pool, truth, round_index) if self.aligned else pool
        confidence = winners(level).confidence if self.aligned else top.confidence
        state = SoftState.start(pool.logits.shape[1])
        for _ in range(round_index):
            state = state.step(confidence, self.momentum)
        thresholds = np.full(pool.logits.shape[1], min(1.0, state.mean))
        return accept(
            pool, np.ones(len(pool), dtype=bool), top, thresholds, round_index, state.weights(confidence, self.deviations)
        )
