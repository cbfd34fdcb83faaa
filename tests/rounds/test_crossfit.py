from __future__ import annotations

import numpy as np
import pytest

from orchestrator.rounds.crossfit import Scored, combined, ensemble, for_folds, of_fold
from orchestrator.rounds.decisions import Reason, decisions
from orchestrator.rounds.mixing import Mixing
from orchestrator.rounds.selection import FixedThreshold
from orchestrator.vocabulary import PseudoLabels
from tests.rounds.said import said

HUMANS = np.array(["h0", "h1", "h2", "h3"])
TRUTH, FOLDS = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
FIRST = said([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], ["a", "b", "c"])
SECOND = said([[0.7, 0.3], [0.1, 0.9], [0.9, 0.1]], ["a", "b", "c"])


def labels_of_both(threshold: float = 0.65) -> PseudoLabels:
    policy = FixedThreshold(threshold)
    judged, truth = said([[0.9, 0.1]]), np.array([0])
    return for_folds([policy.select(pool, judged=judged, truth=truth, round_index=1) for pool in (FIRST, SECOND)])


def test_each_student_gets_the_labels_of_its_own_teacher() -> None:
    labels = labels_of_both()
    assert labels.clip_ids.tolist() == ["a", "a", "b", "c", "c"]
    assert labels.folds is not None
    assert labels.folds.tolist() == [0, 1, 1, 0, 1]
    assert of_fold(labels, 0).labels.tolist() == [0, 1]
    assert of_fold(labels, 1).labels.tolist() == [0, 1, 0]


def test_the_reader_sees_one_row_a_clip_weighted_by_the_share_of_students_that_learn_it() -> None:
    rows = combined(labels_of_both(), folds=2)
    assert rows.clip_ids.tolist() == ["a", "b", "c"]
    assert rows.weights.tolist() == [1.0, 0.5, 1.0]
    np.testing.assert_allclose(rows.targets, np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    np.testing.assert_allclose(rows.confidence, [0.8, 0.9, 0.85], atol=1e-6)


def test_the_ensemble_is_the_mean_of_the_students_and_knows_their_disagreement() -> None:
    both = ensemble([FIRST, SECOND])
    np.testing.assert_allclose(both.logits, (FIRST.logits + SECOND.logits) / 2)
    assert both.uncertainty is not None
    assert both.uncertainty[0] == pytest.approx(0.1, abs=1e-6)  # .9 and .7


def test_the_ensemble_keeps_the_most_frequent_vote_of_each_voice() -> None:
    said_by = [said([[0.9, 0.1]], votes=np.array([votes], np.int8), voices=("A", "V")) for votes in ([0, -1], [1, -1], [1, 0])]
    votes = ensemble(said_by).votes
    assert votes is not None
    assert votes.tolist() == [[1, 0]]


def test_students_of_different_pools_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same pool, got lengths \[3, 1\]"):
        Scored(FIRST, (FIRST, said([[0.5, 0.5]])))


def test_a_student_learns_neither_its_own_fold_nor_labels_its_teacher_did_not_give() -> None:
    mixed = Mixing(ratio=100).mix(HUMANS, TRUTH, FOLDS, 2, labels_of_both())
    assert mixed.clip_ids.tolist() == ["h0", "h1", "h2", "h3", "a", "b", "c"]
    assert (mixed.weights[0] > 0).tolist() == [False, False, True, True, True, False, True]
    assert (mixed.weights[1] > 0).tolist() == [True, True, False, False, True, True, True]


def test_without_pseudo_labels_students_learn_from_the_other_folds() -> None:
    mixed = Mixing().mix(HUMANS, TRUTH, FOLDS, 2, None)
    assert mixed.weights.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_pseudo_labels_together_weigh_at_most_the_ratio_times_the_human_labels() -> None:
    mixed = Mixing(ratio=0.5).mix(HUMANS, TRUTH, FOLDS, 2, labels_of_both())
    assert mixed.weights[:, 4:].sum(axis=1).tolist() == pytest.approx([1.0, 1.0])  # half of two human labels
    quiet = Mixing(ratio=100, each=0.25).mix(HUMANS, TRUTH, FOLDS, 2, labels_of_both())
    assert quiet.weights.max(axis=0)[4:].tolist() == pytest.approx([0.25] * 3)


def test_a_ramp_raises_the_weight_round_by_round_and_balance_evens_the_classes() -> None:
    assert Mixing(ratio=100, ramp=4).mix(HUMANS, TRUTH, FOLDS, 2, labels_of_both()).weights[1, 4] == pytest.approx(0.25)
    balanced = Mixing(ratio=100, balance=True).mix(HUMANS, TRUTH, FOLDS, 2, labels_of_both())
    assert balanced.weights[1, [4, 6]].sum() == pytest.approx(balanced.weights[1, 5])  # two of class 0, one of class 1


def test_a_clip_with_both_kinds_of_label_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' first"):
        Mixing().mix(np.array(["a", "h1", "h2", "h3"]), TRUTH, FOLDS, 2, labels_of_both())


def test_the_ledger_says_of_every_clip_whether_it_was_accepted_or_why_not() -> None:
    rows = decisions(ensemble([FIRST, SECOND]), labels_of_both(0.85))
    assert rows.clip_ids.tolist() == ["a", "b", "c"]
    assert rows.accepted_by.tolist() == [1, 1, 1]
    assert decisions(FIRST, labels_of_both(0.95)).reasons.tolist() == [Reason.BELOW] * 3
    left = labels_of_both(0.5)
    nobody = of_fold(left, 7)
    assert decisions(FIRST, nobody).reasons.tolist() == [Reason.LEFT] * 3
