from __future__ import annotations

import numpy as np
import pytest

from orchestrator.metrics import confusion, waf
from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.guard import Guard, divergence, paired_bootstrap, weighted_f1
from orchestrator.vocabulary import Ints, Predictions, Verdict

C = 4
TRUTH = np.arange(200) % C
POOL = np.arange(400) % C


def naming(labels: Ints, prefix: str) -> Predictions:
    ids = np.array([f"{prefix}{row:04d}" for row in range(len(labels))])
    return Predictions(ids, (3 * np.eye(C)[labels]).astype(np.float32), "student")


def student(accuracy: float, pool: Ints = POOL) -> Scored:
    """Right in every clip but the last ones."""
    wrong = np.arange(len(TRUTH)) >= accuracy * len(TRUTH)
    return Scored(naming(np.where(wrong, (TRUTH + 1) % C, TRUTH), "h"), (naming(pool, "p"),))


def judged(
    after: Scored, teacher: Scored, *, best: Scored | None = None, origin: Scored | None = None, guard: Guard | None = None
) -> tuple[Verdict, str]:
    best, origin = best or teacher, origin or teacher
    judgement = (guard or Guard()).judge(after, teacher=teacher, best=best, origin=origin, truth=TRUTH, seed=0)
    return judgement.verdict, judgement.reason


def counts(truth: Ints, named: Ints) -> Ints:
    return np.bincount(truth * 3 + named, minlength=9).reshape(3, 3)


def test_weighted_f1_of_counts_equals_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, named = rng.integers(0, 3, 90), rng.integers(0, 2, 90)
    assert weighted_f1(confusion(truth, named, 4)) == pytest.approx(waf(truth, named), abs=1e-12)


def test_the_bootstrap_of_cells_has_the_mean_and_spread_of_a_bootstrap_of_clips() -> None:
    rng = np.random.default_rng(1)
    truth, before, after = (rng.integers(0, 3, 80) for _ in range(3))
    after = np.where(rng.random(80) < 0.5, truth, after)
    fast = paired_bootstrap(truth, before, after, classes=3, draws=4000, seed=0)
    rows = [rng.integers(0, 80, 80) for _ in range(1500)]
    slow = np.array([weighted_f1(counts(truth[i], after[i])) - weighted_f1(counts(truth[i], before[i])) for i in rows])
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.01)
    assert fast.std() == pytest.approx(slow.std(), rel=0.1)


def test_a_student_proven_better_is_promoted_with_its_gain_in_the_reason() -> None:
    verdict, reason = judged(student(0.8), student(0.6))
    assert verdict is Verdict.PROMOTED
    assert "points WAF on round 0" in reason


def test_a_gain_within_the_margin_is_not_enough() -> None:
    assert judged(student(0.62), student(0.6))[0] is Verdict.KEPT
    assert judged(student(0.62), student(0.6), guard=Guard(margin=0.0, sure=0.5))[0] is Verdict.PROMOTED


def test_a_student_below_the_best_model_is_kept_although_it_beats_round_zero() -> None:
    verdict, reason = judged(student(0.8), student(0.79), best=student(0.9), origin=student(0.6))
    assert verdict is Verdict.KEPT
    assert "no better than the best model" in reason


def test_harm_to_the_teacher_or_to_round_zero_is_rejected() -> None:
    assert "worse than its teacher" in judged(student(0.7), student(0.8))[1]
    assert "worse than round 0" in judged(student(0.7), student(0.7), origin=student(0.8))[1]


def test_a_class_that_vanishes_from_the_pool_is_a_collapse() -> None:
    verdict, reason = judged(student(0.9, np.where(POOL == 2, 1, POOL)), student(0.7))
    assert verdict is Verdict.REJECTED
    assert "class 2 fell from 25.0%" in reason


def test_drift_is_measured_from_round_zero_and_churn_from_the_teacher() -> None:
    skewed = np.where(np.arange(400) < 350, 0, POOL)
    gentle = Guard(collapse=0.001, churn=1.0)
    assert "drifted" in judged(student(0.9, skewed), student(0.7, skewed), origin=student(0.7), guard=gentle)[1]
    assert "100% of the pool changed class" in judged(student(0.9, (POOL + 1) % C), student(0.7))[1]


def test_divergence_is_zero_for_equal_shares_and_grows_with_the_difference() -> None:
    even = np.full(2, 0.5)
    assert divergence(even, even) == 0
    assert divergence(np.array([0.75, 0.25]), even) == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))


def test_an_empty_pool_can_be_judged() -> None:
    assert judged(student(0.8, POOL[:0]), student(0.6, POOL[:0]))[0] is Verdict.PROMOTED
