"""Choose which unlabelled clips the student may learn from.

A policy reads the teacher's calibrated predictions and returns pseudo-labels, sorted by clip id. What it leaves out stays
unlabelled and is offered again next round. NumPy only: no torch, no Ray, no I/O; the rows are read in slices that fit the
processor's cache, so ten million clips cost a few flat arrays.

    Predictions (N, C)  -->  winners  -->  policy  -->  accept  -->  PseudoLabels (K, C),  K <= N

A policy may be wrapped: `consensus.Agreement` narrows the pool first, `alignment.Aligned` corrects its prior, `alignment.Soft`
makes the targets soft. `adaptive` has the policies whose thresholds move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from orchestrator.vocabulary import Bools, Floats, Ints, Predictions, PseudoLabels

CLOSED = 2.0  # a threshold no confidence can reach: this class takes nobody in this round
_SLICE = 1 << 15  # rows at a time: their logits stay in the cache
_STEPS = 1_000_000  # confidences are compared after rounding to 1 / _STEPS; ties go to the smaller clip id


class Winners(NamedTuple):
    """The best class of each clip and its probability, rounded so that the last bits of an exponential decide nothing."""

    labels: NDArray[np.int64]  # (N,)
    confidence: NDArray[np.float32]  # (N,)


def winners(predictions: Predictions, handicap: Floats | None = None) -> Winners:
    """Best class by calibrated probability; `handicap` `(C,)` is subtracted from the scaled logits for the choice alone."""
    labels = np.empty(len(predictions), np.int64)
    confidence = np.empty(len(predictions), np.float32)
    for rows, scaled in slices(predictions):
        best = (scaled if handicap is None else scaled - handicap.astype(np.float32)).argmax(axis=1)
        scaled -= np.take_along_axis(scaled, best[:, None], axis=1)
        labels[rows] = best
        confidence[rows] = 1.0 / np.exp(scaled, out=scaled).sum(axis=1)
    np.rint(confidence * _STEPS, out=confidence)
    confidence /= _STEPS
    return Winners(labels, confidence)


def slices(predictions: Predictions) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Slices of rows with their calibrated logits `(b, C)`, free to be overwritten."""
    scale, bias = predictions.scale.astype(np.float32), predictions.bias.astype(np.float32)
    for first in range(0, len(predictions), _SLICE):
        rows = slice(first, min(first + _SLICE, len(predictions)))
        scaled = predictions.logits[rows] * scale
        scaled += bias
        yield rows, scaled


def in_clip_order(predictions: Predictions) -> Predictions:
    """The same rows sorted by clip id; costs one comparison a row when they already are."""
    ids = predictions.clip_ids
    return predictions if bool((ids[1:] >= ids[:-1]).all()) else predictions.rows(np.argsort(ids, kind="stable"))


def most_confident(confidence: Floats, count: int) -> Bools:
    """Mask `(N,)` of the `count` highest, ties to the earlier row: exactly `count`, in linear time."""
    mask = np.zeros(len(confidence), dtype=bool)
    if count <= 0:
        return mask
    if count >= len(confidence):
        return ~mask
    worth = np.rint(confidence * _STEPS).astype(np.int64)
    order = (_STEPS - worth) * len(confidence) + np.arange(len(confidence))  # unique: (confidence down, row up)
    return np.asarray(order <= np.partition(order, count - 1)[count - 1])


def accept(
    pool: Predictions, chosen: Bools, top: Winners, thresholds: Floats, round_index: int, weights: Floats | None = None
) -> PseudoLabels:
    """Hard pseudo-labels of the chosen rows; `pool` must be in clip order."""
    index = np.flatnonzero(chosen)
    targets = np.zeros((len(index), pool.logits.shape[1]), np.float32)
    targets[np.arange(len(index)), top.labels[index]] = 1.0
    weight = np.ones(len(index), np.float32) if weights is None else weights[index].astype(np.float32)
    confidence = top.confidence[index].astype(np.float32)
    return PseudoLabels(
        pool.clip_ids[index], targets, weight, confidence, thresholds.astype(np.float32), pool.teacher, round_index
    )


def reaching(pool: Predictions, thresholds: Floats, round_index: int) -> PseudoLabels:
    """Every clip whose confidence reaches the threshold `(C,)` of its winning class."""
    pool = in_clip_order(pool)
    top = winners(pool)
    return accept(pool, top.confidence >= thresholds.astype(np.float32)[top.labels], top, thresholds, round_index)


def class_shares(pool: Predictions, top: Winners, shares: Floats, floor: float, round_index: int) -> PseudoLabels:
    """The most confident `shares[c]` of the clips each class wins, none below `floor`. At least one clip a class that has any."""
    classes = pool.logits.shape[1]
    chosen = np.zeros(len(pool), dtype=bool)
    thresholds = np.full(classes, CLOSED)
    for label in range(classes):
        rows = np.flatnonzero(top.labels == label)
        count = int(np.ceil(shares[label] * len(rows) - 1e-9))
        taken = rows[most_confident(top.confidence[rows], count) & (top.confidence[rows] >= floor)]
        chosen[taken] = True
        thresholds[label] = top.confidence[taken].min(initial=CLOSED)
    return accept(pool, chosen, top, thresholds, round_index)


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {value}")


@dataclass(frozen=True, slots=True)
class FixedThreshold:
    """Accept a clip when its calibrated top probability reaches `threshold` (FixMatch, Sohn et al. 2020, eq. 4)."""

    threshold: float = 0.95

    def __post_init__(self) -> None:
        _check_share("selection.threshold", self.threshold)

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        return reaching(pool, np.full(pool.logits.shape[1], self.threshold), round_index)


@dataclass(frozen=True, slots=True)
class ClassQuantile:
    """A threshold per class: the `quantile` of the confidences of its *correctly* recognised labelled clips.

    Lian et al. 2023 (MER 2023, algorithm 1), with out-of-fold confidences. A class recognised fewer than `support` times takes
    the quantile over all classes.
    """

    quantile: float = 0.2
    support: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"selection.quantile must be in [0, 1], got {self.quantile}")

    def thresholds(self, judged: Predictions, truth: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(C,)`; closed when nothing at all was recognised."""
        top = winners(judged)
        right = top.labels == truth
        if not right.any():
            return np.full(judged.logits.shape[1], CLOSED)
        overall = np.quantile(top.confidence[right], self.quantile)
        own = [top.confidence[right & (truth == label)] for label in range(judged.logits.shape[1])]
        return np.array([np.quantile(c, self.quantile) if len(c) >= max(1, self.support) else overall for c in own])

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        return reaching(pool, self.thresholds(judged, truth), round_index)


def wilson_lower(hits: Floats | Ints, trials: Floats | Ints, level: float) -> NDArray[np.float64]:
    """One-sided lower confidence bound of a proportion (Wilson 1927); 0 without trials."""
    z = norm.ppf(level)
    n = np.maximum(trials, 1e-12)
    p = hits / n
    bound = (p + z**2 / (2 * n) - z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))) / (1 + z**2 / n)
    return np.asarray(np.where(trials > 0, np.maximum(bound, 0.0), 0.0))


@dataclass(frozen=True, slots=True)
class PrecisionTargeted:
    """Per class the lowest threshold whose out-of-fold precision is, with confidence `level`, at least `precision`.

    The bound is Wilson's. It gives every round a noise number that can be checked. A class that wins fewer than `support`
    labelled clips takes `fallback`'s threshold; one that never reaches the precision is closed.
    """

    precision: float = 0.85
    level: float = 0.9
    support: int = 30
    fallback: ClassQuantile = ClassQuantile(0.5)

    def __post_init__(self) -> None:
        _check_share("selection.precision", self.precision)
        if not 0.5 <= self.level < 1:
            raise ValueError(f"selection.level must be in [0.5, 1), got {self.level}")

    def thresholds(self, judged: Predictions, truth: NDArray[np.int64]) -> NDArray[np.float64]:
        """`(C,)`."""
        top = winners(judged)
        thresholds = self.fallback.thresholds(judged, truth)
        for label in range(judged.logits.shape[1]):
            won = top.labels == label
            if won.sum() >= self.support:
                thresholds[label] = self._lowest(top.confidence[won], truth[won] == label)
        return thresholds

    def _lowest(self, confidence: Floats, right: Bools) -> float:
        levels, inverse = np.unique(-confidence, return_inverse=True)  # highest confidence first, ties together
        trials, hits = np.cumsum(np.bincount(inverse)), np.cumsum(np.bincount(inverse, weights=right))
        good = np.flatnonzero(wilson_lower(hits, trials, self.level) >= self.precision)
        return float(-levels[good[-1]]) if len(good) else CLOSED

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        return reaching(pool, self.thresholds(judged, truth), round_index)


@dataclass(frozen=True, slots=True)
class Crest:
    """The rarer a class among human labels, the larger the share of its predicted clips that is accepted (Wei 2021, eq. 1).

    With labelled counts sorted N_1 >= ... >= N_C the class of rank l keeps the share (N_{C+1-l} / N_1)^alpha of the clips it
    wins, the most confident first. Ranks are by real counts.
    """

    alpha: float = 1 / 3
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or not 0 <= self.floor <= 1:
            raise ValueError(f"selection.alpha and selection.floor must be in [0, 1], got {self.alpha} and {self.floor}")

    def shares(self, truth: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
        """`(C,)`."""
        counts = np.bincount(truth, minlength=classes)
        order = np.argsort(-counts, kind="stable")  # order[l] is the class of rank l
        shares = np.empty(classes)
        shares[order] = (counts[order][::-1] / max(1, counts.max())) ** self.alpha
        return shares

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        pool = in_clip_order(pool)
        return class_shares(pool, winners(pool), self.shares(truth, pool.logits.shape[1]), self.floor, round_index)


@dataclass(frozen=True, slots=True)
class Growing:
    """A share that grows from round to round: `start` in round 1, `step` more each round, never above `most`."""

    start: float = 0.2
    step: float = 0.05
    most: float = 0.5

    def __post_init__(self) -> None:
        _check_share("selection share start", self.start)
        _check_share("selection share most", self.most)
        if self.step < 0:
            raise ValueError(f"selection share step must be at least 0, got {self.step}")

    def at(self, round_index: int) -> float:
        return min(self.most, self.start + self.step * max(0, round_index - 1))


@dataclass(frozen=True, slots=True)
class Cbst:
    """Class-balanced self-training (Zou et al. 2018, eqs. 6-8): the same growing share of each class, labels re-normalised.

    t_c is the confidence at rank share * N_c among the clips class c wins; the label is argmax_c p_c / t_c, accepted when that
    ratio reaches 1.
    """

    share: Growing = Growing()

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        pool = in_clip_order(pool)
        classes = pool.logits.shape[1]
        top = winners(pool)
        thresholds = np.full(classes, CLOSED)
        for label in range(classes):
            own = top.confidence[top.labels == label]
            if len(own):
                rank = max(1, int(np.ceil(self.share.at(round_index) * len(own) - 1e-9)))
                thresholds[label] = -np.partition(-own, rank - 1)[rank - 1]
        top = winners(pool, handicap=np.log(thresholds))
        return accept(pool, top.confidence >= thresholds.astype(np.float32)[top.labels], top, thresholds, round_index)


@dataclass(frozen=True, slots=True)
class QuotaShare:
    """A growing share of the pool, divided among the classes in advance: class c gets at most share * N * prior_c clips.

    Each class takes its most confident winners up to its quota, so a class the teacher favours cannot crowd out the others
    (Noisy Student's balancing, Xie et al. 2020, section 2, without duplicating the rare). The prior is that of the human labels,
    one clip a class added, or even. Where the pool's classes differ from both, quotas of absent classes fill with errors: `Cbst`
    asks each class for a share of its own winners instead.
    """

    share: Growing = Growing()
    floor: float = 0.0
    even: bool = False

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        pool = in_clip_order(pool)
        classes = pool.logits.shape[1]
        top = winners(pool)
        prior = (
            np.full(classes, 1 / classes) if self.even else (np.bincount(truth, minlength=classes) + 1.0) / (len(truth) + classes)
        )
        quotas = np.ceil(self.share.at(round_index) * len(pool) * prior - 1e-9)
        shares = np.minimum(1.0, quotas / np.maximum(1, np.bincount(top.labels, minlength=classes)))
        return class_shares(pool, top, shares, self.floor, round_index)


@dataclass(frozen=True, slots=True)
class Ups:
    """Confident and certain (UPS, Rizve et al. 2021, eq. 5): probability >= `confidence` and deviation < `uncertainty`.

    The deviation is `Predictions.uncertainty`, over ensemble members or dropout passes. `balanced` keeps per class only as many
    as the rarest accepted class has, but at least 25, the least uncertain first (their early rounds). UPS's negative labels
    have no place in targets that sum to 1 and are left out.
    """

    confidence: float = 0.7
    uncertainty: float = 0.05
    balanced: bool = True

    def __post_init__(self) -> None:
        _check_share("selection.confidence", self.confidence)
        if self.uncertainty <= 0:
            raise ValueError(f"selection.uncertainty must be positive, got {self.uncertainty}")

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        if pool.uncertainty is None:
            raise ValueError(
                "Ups needs Predictions.uncertainty: predict with an ensemble of at least two members, or choose another policy"
            )
        pool = in_clip_order(pool)
        assert pool.uncertainty is not None
        classes = pool.logits.shape[1]
        top = winners(pool)
        chosen = (top.confidence >= np.float32(self.confidence)) & (pool.uncertainty < self.uncertainty)
        if self.balanced:
            counts = np.bincount(top.labels[chosen], minlength=classes)
            most = max(25, int(counts.min()))
            for label in range(classes):
                rows = np.flatnonzero(chosen & (top.labels == label))
                chosen[rows[~most_confident(1 - pool.uncertainty[rows], most)]] = False
        return accept(pool, chosen, top, np.full(classes, self.confidence), round_index)
