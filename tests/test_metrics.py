from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, recall_score

from orchestrator.metrics import confusion, ece, reliability, scores, uar, waf

LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@settings(max_examples=20, deadline=None)
@given(LABELS)
def test_scores_equal_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, named = np.array(pairs).T
    score = scores(truth, named)
    assert score["waf"] == pytest.approx(f1_score(truth, named, average="weighted", zero_division=0))
    assert score["accuracy"] == pytest.approx(accuracy_score(truth, named))
    present = np.unique(truth)
    assert score["uar"] == pytest.approx(recall_score(truth, named, average="macro", labels=present, zero_division=0))


def test_waf_by_hand() -> None:
    # class 0: precision 2/3, recall 1, F1 .8; class 1: precision 1, recall 1/2, F1 2/3; weights 1/2 each
    assert waf(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])) == pytest.approx(0.5 * 0.8 + 0.5 * 2 / 3)


def test_uar_leaves_out_classes_that_do_not_occur() -> None:
    assert uar(np.array([0, 0, 1]), np.array([0, 2, 1])) == pytest.approx(0.75)


def test_a_class_nobody_named_scores_zero_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert waf(np.array([0, 1]), np.array([0, 0])) == pytest.approx(1 / 3)


def test_confusion_has_a_row_for_every_class_even_one_that_never_occurs() -> None:
    counts = confusion(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)
    assert counts.tolist() == [[1, 0, 1, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]


def test_ece_by_hand() -> None:
    # one bin: mean confidence .9, accuracy .5
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert ece(probabilities, np.array([0, 1])) == pytest.approx(0.4)
    assert ece(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_reliability_shares_sum_to_one_and_empty_bins_are_zeros() -> None:
    rows = reliability(np.array([0.05, 0.95, 1.0]), np.array([0, 1, 1]), bins=10)
    assert rows[:, 2].sum() == pytest.approx(1)
    assert rows[9].tolist() == pytest.approx([0.975, 1.0, 2 / 3])
    assert not rows[1:9].any()
