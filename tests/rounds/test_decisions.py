"""Every pool clip has a decision, and the reason is the one the policy had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestrator.rounds.alignment import Aligned
from orchestrator.rounds.crossfit import for_folds
from orchestrator.rounds.decisions import Reason, decisions
from orchestrator.rounds.selection import CLOSED, FixedThreshold
from tests.rounds.said import random_pool, said

TRUTH = np.array([0, 1])


def test_accepted_below_closed_and_left_are_told_apart() -> None:
    pool = said([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.8, 0.2]])
    labels = FixedThreshold(0.75).select(pool, judged=pool, truth=TRUTH, round_index=1)
    kept = np.isin(labels.clip_ids, ["c000000"])  # the policy left one that reached its threshold
    some = replace(labels, clip_ids=labels.clip_ids[kept], targets=labels.targets[kept], weights=labels.weights[kept])
    some = replace(some, confidence=labels.confidence[kept], thresholds=np.array([0.75, CLOSED], np.float32))
    told = decisions(pool, some)
    assert told.reasons.tolist() == [Reason.ACCEPTED, Reason.BELOW, Reason.CLOSED_CLASS, Reason.LEFT]
    assert told.labels.tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(told.confidence, [0.9, 0.6, 0.9, 0.8], atol=1e-5)


def test_folds_that_accept_a_clip_are_counted_whatever_the_order_of_the_pool() -> None:
    pools = [said([[0.9, 0.1], [first, 1 - first], [0.5, 0.5]]) for first in (0.8, 0.6)]
    chosen = [FixedThreshold(0.75).select(pool, judged=pool, truth=TRUTH, round_index=1) for pool in pools]
    ensemble = said([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]])
    told = decisions(ensemble.rows(np.array([2, 0, 1])), for_folds(chosen))
    assert told.clip_ids.tolist() == ["c000000", "c000001", "c000002"]
    assert told.accepted_by.tolist() == [2, 1, 0]


def test_a_decision_sees_the_pool_as_the_policy_did_after_alignment() -> None:
    pool = random_pool(500, 3, seed=0, sharpness=1.0)
    pool = replace(pool, logits=pool.logits + np.array([1.5, 0, 0], np.float32))  # a teacher that favours one class
    labels = Aligned(FixedThreshold(0.6), to="even").select(pool, judged=pool, truth=np.array([0, 1, 2]), round_index=1)
    told = decisions(pool, labels)
    assert ((told.confidence >= np.float32(0.6)) == (told.accepted_by > 0)).all()
    assert set(told.reasons.tolist()) == {Reason.ACCEPTED, Reason.BELOW}


def test_who_an_external_teacher_said_nothing_of_has_no_answer() -> None:
    pool = said([[0.9, 0.1], [0.6, 0.4]])
    labels = FixedThreshold(0.75).select(replace(pool, teacher="Emotion-LLaMA"), judged=pool, truth=TRUTH, round_index=1)
    told = decisions(pool, labels)
    assert told.teacher == "Emotion-LLaMA"
    assert told.reasons.tolist() == [Reason.ACCEPTED, Reason.UNANSWERED]
