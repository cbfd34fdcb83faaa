"""Decide what a student may become, by human labels out of fold and by how the view of the pool moved.

    rejected   worse      paired bootstrap over labelled clips: WAF below round 0's or its teacher's in too many draws
               collapsed  a class that used to win pool clips wins next to none
               drifted    the classes won in the pool moved too far from round 0's (KL)
               churned    too many pool clips changed their class at once
    promoted   WAF above round 0's by a margin in most draws, and no worse than the best model so far
    kept       neither: it may teach, for the next student can still be better, but it is not handed out

The margin is there because out-of-fold gains flatter: the pool holds other clips of the very speakers a fold is judged on, and
single students gain more from it than their ensemble, which is what a run hands out.
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
    """The numbers of the tests.

    - `margin`: WAF a student must gain on round 0 out of fold, in at least the share `sure` of the bootstrap draws.
    - `risk`: rejected as worse when at least this share of draws is below. Lenient, for on a few dozen clips only a disaster
      can be proven.
    - `collapse`: a class that won a quarter of an even share of the pool (1 / 4C) or more must keep this share of its clips.
    - `drift`: KL in nats of the classes won in the pool, against round 0.
    - `churn`: share of pool clips that changed class in one round.
    - `draws`: bootstrap resamplings.
    """

    margin: float = 0.02
    sure: float = 0.8
    risk: float = 0.8
    collapse: float = 0.1
    drift: float = 0.5
    churn: float = 0.6
    draws: int = 1000

    def __post_init__(self) -> None:
        for name in ("sure", "risk", "collapse", "churn"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"guard.{name} must be in (0, 1], got {getattr(self, name)}")
        if self.drift <= 0 or self.draws < 1:
            raise ValueError(f"guard.drift must be positive and guard.draws at least 1, got {self.drift} and {self.draws}")

    def judge(
        self, student: Scored, teacher: Scored, best: Scored, origin: Scored, truth: NDArray[np.int64], seed: int
    ) -> Judgement:
        """The student against its teacher, the best model so far and round 0 (`origin`)."""
        from_teacher, from_best, from_origin = (self._gains(student, other, truth, seed) for other in (teacher, best, origin))
        harm = self._worse(from_teacher, "its teacher") or self._worse(from_origin, "round 0")
        harm = harm or self._moved(student.ensemble, teacher.ensemble, origin.ensemble)
        if harm:
            return Judgement(Verdict.REJECTED, harm)
        won = float((from_origin > self.margin).mean())
        points = f"{100 * from_origin.mean():+.1f} points WAF on round 0"
        story = f"{points}, above the margin of {100 * self.margin:.1f} in {won:.0%} of draws"
        if won < self.sure:
            return Judgement(Verdict.KEPT, f"{story}, {self.sure:.0%} asked: it teaches on, the best model stays")
        if float((from_best >= 0).mean()) < 0.5:
            return Judgement(Verdict.KEPT, f"{story}, but no better than the best model, which stays")
        return Judgement(Verdict.PROMOTED, story)

    def _gains(self, student: Scored, other: Scored, truth: Ints, seed: int) -> NDArray[np.float64]:
        before, after = winners(other.labelled).labels, winners(student.labelled).labels
        classes = student.labelled.logits.shape[1]
        return paired_bootstrap(truth, before, after, classes=classes, draws=self.draws, seed=seed)

    def _worse(self, gains: NDArray[np.float64], name: str) -> str:
        below = float((gains < 0).mean())
        return f"worse than {name} on human labels in {below:.0%} of draws (limit {self.risk:.0%})" if below >= self.risk else ""

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
