"""Decide whether a student may take its teacher's place.

Judged by human labels out of fold, and by how the student's view of the pool moved. Four ways to be rejected:

    worse      paired bootstrap over labelled clips: WAF below the teacher's, or below round 0's, in too many draws
    collapsed  a class that used to win pool clips wins next to none
    drifted    the mean pool probability moved too far (KL, in nats) from round 0's
    churned    too many pool clips changed their class at once
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.selection import winners
from orchestrator.vocabulary import Floats, Ints, Predictions, Verdict


@dataclass(frozen=True, slots=True)
class Scored:
    """What a student says, and all that guard and selection need.

    - `labelled`: out of fold, on the human-labelled clips, in the order of their human labels.
    - `pool`: mean of the fold ensemble, on the unlabelled clips.
    """

    labelled: Predictions
    pool: Predictions


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    reason: str


def weighted_f1(counts: Floats | Ints) -> NDArray[np.float64]:
    """WAF of confusion counts `(..., C, C)`, rows the truth; every class nobody names scores 0."""
    support, named, hits = counts.sum(-1), counts.sum(-2), np.diagonal(counts, axis1=-2, axis2=-1)
    f1 = 2 * hits / np.maximum(support + named, 1)
    return np.asarray((support * f1).sum(-1) / np.maximum(support.sum(-1), 1))


def paired_bootstrap(truth: Ints, before: Ints, after: Ints, *, classes: int, draws: int, seed: int) -> NDArray[np.float64]:
    """WAF(after) - WAF(before) in each of `draws` resamplings of the clips, `(draws,)` (Efron & Tibshirani 1993, ch. 16).

    Clips with the same (truth, before, after) are exchangeable, so the C^3 cell counts are resampled, not the clips.
    """
    cells = np.ravel_multi_index((truth, before, after), (classes,) * 3)
    filled, counts = np.unique(cells, return_counts=True)
    sampled = np.random.default_rng(seed).multinomial(len(truth), counts / len(truth), size=draws)  # (draws, filled)
    cells_of_draw = np.zeros((draws, classes**3))
    cells_of_draw[:, filled] = sampled
    cube = cells_of_draw.reshape(draws, classes, classes, classes)  # truth, before, after
    return weighted_f1(cube.sum(2)) - weighted_f1(cube.sum(3))


def divergence(ours: Floats, theirs: Floats) -> float:
    """KL(ours || theirs) in nats between two class distributions `(C,)`."""
    p, q = np.maximum(ours, 1e-12), np.maximum(theirs, 1e-12)
    return float((p * np.log(p / q)).sum())


def class_mass(predictions: Predictions) -> NDArray[np.float64]:
    """Share of clips each class wins, smoothed by one clip a class, `(C,)`."""
    counts = np.bincount(winners(predictions).labels, minlength=predictions.logits.shape[1]) + 1.0
    return np.asarray(counts / counts.sum())


@dataclass(frozen=True, slots=True)
class Guard:
    """The numbers of the four tests.

    - `risk`: rejected as worse when at least this share of bootstrap draws is below. 0.8 asks for evidence of harm, for
      on a few dozen clips nothing better than a coin separates most students; 0.5 asks for evidence of good.
    - `collapse`: a class that won its even share of pool clips (1 / C) times 0.25 or more must keep this share of them.
    - `drift`: KL in nats of the classes won in the pool, against round 0.
    - `churn`: share of pool clips that changed class in one round.
    - `draws`: bootstrap resamplings.
    """

    risk: float = 0.8
    collapse: float = 0.1
    drift: float = 0.5
    churn: float = 0.5
    draws: int = 1000

    def __post_init__(self) -> None:
        for name in ("risk", "collapse", "churn"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"guard.{name} must be in (0, 1], got {getattr(self, name)}")
        if self.drift <= 0 or self.draws < 1:
            raise ValueError(f"guard.drift must be positive and guard.draws at least 1, got {self.drift} and {self.draws}")

    def judge(
        self, student: Scored, teacher: Scored, origin: Scored, truth: NDArray[np.int64], *, min_gain: float, seed: int
    ) -> Judgement:
        """The student against its teacher and against round 0 (`origin`), all calibrated."""
        harm = self._worse(student, teacher, truth, seed, "its teacher") or self._worse(student, origin, truth, seed, "round 0")
        harm = harm or self._collapsed(student, teacher) or self._drifted(student, origin) or self._churned(student, teacher)
        if harm:
            return Judgement(Verdict.REJECTED, harm)
        gain = _waf(student, truth) - _waf(teacher, truth)
        if gain >= min_gain:
            return Judgement(Verdict.PROMOTED, f"out-of-fold WAF moved by {100 * gain:+.1f} points and nothing speaks against it")
        return Judgement(
            Verdict.KEPT, f"out-of-fold WAF moved by {100 * gain:+.1f} points, short of {100 * min_gain:+.1f}: the teacher stays"
        )

    def _worse(self, student: Scored, other: Scored, truth: Ints, seed: int, name: str) -> str:
        ours, theirs = winners(student.labelled).labels, winners(other.labelled).labels
        classes = student.labelled.logits.shape[1]
        moved = paired_bootstrap(truth, theirs, ours, classes=classes, draws=self.draws, seed=seed)
        below = float((moved < 0).mean())
        return (
            f"worse than {name} on human labels in {below:.0%} of bootstrap draws (limit {self.risk:.0%})"
            if below >= self.risk
            else ""
        )

    def _collapsed(self, student: Scored, teacher: Scored) -> str:
        ours, theirs = class_mass(student.pool), class_mass(teacher.pool)
        lost = np.flatnonzero((theirs >= 0.25 / len(theirs)) & (ours < self.collapse * theirs))
        return (
            f"class {lost[0]} fell from {theirs[lost[0]]:.1%} to {ours[lost[0]]:.1%} of the pool: collapsed" if len(lost) else ""
        )

    def _drifted(self, student: Scored, origin: Scored) -> str:
        moved = divergence(class_mass(student.pool), class_mass(origin.pool))
        return f"classes of the pool drifted {moved:.2f} nats from round 0 (limit {self.drift:.2f})" if moved > self.drift else ""

    def _churned(self, student: Scored, teacher: Scored) -> str:
        changed = float((winners(student.pool).labels != winners(teacher.pool).labels).mean()) if len(student.pool) else 0.0
        return f"{changed:.0%} of the pool changed class at once (limit {self.churn:.0%})" if changed > self.churn else ""


def _waf(scored: Scored, truth: Ints) -> float:
    classes = scored.labelled.logits.shape[1]
    cells = np.bincount(truth * classes + winners(scored.labelled).labels, minlength=classes**2)
    return float(weighted_f1(cells.reshape(classes, classes)))
