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

from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.selection import winners
from orchestrator.vocabulary import Floats, Ints, Predictions, Verdict


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
        harm = harm or self._moved(student.ensemble, teacher.ensemble, origin.ensemble)
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

    def _moved(self, student: Predictions, teacher: Predictions, origin: Predictions) -> str:
        """What is wrong with how the view of the pool moved, "" when nothing is."""
        ours, theirs = class_mass(student), class_mass(teacher)
        lost = np.flatnonzero((theirs >= 0.25 / len(theirs)) & (ours < self.collapse * theirs))
        if len(lost):
            return f"class {lost[0]} fell from {theirs[lost[0]]:.1%} to {ours[lost[0]]:.1%} of the pool: collapsed"
        drift = divergence(ours, class_mass(origin))
        if drift > self.drift:
            return f"classes of the pool drifted {drift:.2f} nats from round 0 (limit {self.drift:.2f})"
        churn = float((winners(student).labels != winners(teacher).labels).mean()) if len(student) else 0.0
        return f"{churn:.0%} of the pool changed class at once (limit {self.churn:.0%})" if churn > self.churn else ""


def _waf(scored: Scored, truth: Ints) -> float:
    classes = scored.labelled.logits.shape[1]
    cells = np.bincount(truth * classes + winners(scored.labelled).labels, minlength=classes**2)
    return float(weighted_f1(cells.reshape(classes, classes)))
