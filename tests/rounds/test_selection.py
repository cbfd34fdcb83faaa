from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.rounds.adaptive import FlexMatch, FreeMatch, SoftMatch
from orchestrator.rounds.alignment import Aligned, Soft
from orchestrator.rounds.selection import (
    CLOSED,
    Cbst,
    ClassQuantile,
    Crest,
    FixedThreshold,
    Growing,
    PrecisionTargeted,
    QuotaShare,
    Ups,
    most_confident,
    wilson_lower,
    winners,
)
from orchestrator.seams import SelectionPolicy
from orchestrator.vocabulary import PseudoLabels
from tests.rounds.said import random_pool, said

JUDGED = said([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]])
TRUTH = np.array([0, 0, 1, 1, 1, 1])

POLICIES: dict[str, SelectionPolicy] = {
    "fixed": FixedThreshold(0.8),
    "quantile": ClassQuantile(0.3),
    "precision": PrecisionTargeted(),
    "crest": Crest(),
    "cbst": Cbst(),
    "quota": QuotaShare(),
    "ups": Ups(0.5, 0.2),
    "flexmatch": FlexMatch(0.8),
    "freematch": FreeMatch(),
    "softmatch": SoftMatch(),
    "aligned": Aligned(Cbst(), to="labelled"),
    "pool prior": Aligned(FixedThreshold(0.5), to="pool"),
    "soft": Soft(FixedThreshold(0.5), weighted=True),
}


def chosen(policy: SelectionPolicy, rows: list[list[float]], round_index: int = 1) -> list[str]:
    labels = policy.select(said(rows), judged=JUDGED, truth=TRUTH, round_index=round_index)
    return [str(name) for name in labels.clip_ids]


def select(policy: SelectionPolicy, clips: int, classes: int = 6, seed: int = 0) -> PseudoLabels:
    rng = np.random.default_rng(seed)
    pool = replace(random_pool(clips, classes, seed), uncertainty=rng.uniform(0, 0.3, clips).astype(np.float32))
    judged = random_pool(40, classes, seed + 1)
    return policy.select(pool, judged=judged, truth=rng.integers(0, classes, 40), round_index=2)


def test_winners_name_the_likeliest_class_and_its_calibrated_probability() -> None:
    predictions = random_pool(70_000, 5, seed=3)  # more than two slices
    calibrated = replace(predictions, scale=np.full(1, 0.5, np.float32), bias=np.linspace(0, 1, 5).astype(np.float32))
    top = winners(calibrated)
    assert (top.labels == calibrated.probabilities.argmax(axis=1)).all()
    np.testing.assert_allclose(top.confidence, calibrated.probabilities.max(axis=1), atol=1e-6)


def test_a_fixed_threshold_accepts_from_the_threshold_on() -> None:
    assert chosen(FixedThreshold(0.8), [[0.79, 0.21], [0.8, 0.2], [0.1, 0.9]]) == ["c000001", "c000002"]


def test_a_class_quantile_is_taken_over_correctly_recognised_clips_only() -> None:
    # class 0 is right at .9 and .8, class 1 at .7, .8 and .6; the median of each is .85 and .7
    np.testing.assert_allclose(ClassQuantile(0.5, support=1).thresholds(JUDGED, TRUTH), [0.85, 0.7], atol=1e-6)


def test_a_class_with_little_support_takes_the_quantile_over_all_classes() -> None:
    np.testing.assert_allclose(ClassQuantile(0.5, support=3).thresholds(JUDGED, TRUTH), [0.8, 0.7], atol=1e-6)


def test_a_teacher_that_is_never_right_labels_nobody() -> None:
    policy = ClassQuantile(0.5)
    labels = policy.select(said([[1.0, 0.0]]), judged=said([[0.9, 0.1]]), truth=np.array([1]), round_index=1)
    assert len(labels) == 0
    assert labels.thresholds.tolist() == [CLOSED, CLOSED]


def test_wilsons_bound_equals_the_worked_example() -> None:
    # 9 of 10, one-sided 95 %: z = 1.6449; (.9 + .1353 - 1.6449 sqrt(.009 + .00676)) / 1.2706 = .6523
    assert wilson_lower(np.array([9.0]), np.array([10.0]), 0.95)[0] == pytest.approx(0.6523, abs=2e-4)
    assert wilson_lower(np.array([0.0]), np.array([0.0]), 0.95)[0] == 0


def test_precision_targeted_takes_the_lowest_threshold_that_keeps_the_bound() -> None:
    confidence = np.linspace(0.99, 0.51, 100)
    judged = said(np.column_stack([confidence, 1 - confidence]))
    truth = (np.arange(100) >= 60).astype(int)  # the 60 surest are right, the other 40 wrong
    policy = PrecisionTargeted(precision=0.8, level=0.9, support=30)
    threshold = policy.thresholds(judged, truth)[0]
    kept = np.arange(1, 101)
    bound = wilson_lower(np.minimum(kept, 60).astype(float), kept.astype(float), 0.9)
    lowest = confidence[np.flatnonzero(bound >= 0.8)[-1]]
    assert threshold == pytest.approx(lowest, abs=2e-6)


def test_a_class_that_never_reaches_the_precision_is_closed() -> None:
    judged = said([[0.9, 0.1]] * 40)
    truth = np.arange(40) % 2
    assert PrecisionTargeted(precision=0.9, support=30).thresholds(judged, truth)[0] == CLOSED


def test_crest_shares_grow_towards_the_rarest_class() -> None:
    # MER2024's counts and alpha 1/3: neutral .534, angry .790 (by rank: 616/1248), ..., surprise 1
    counts = [1248, 1208, 1038, 730, 616, 190]
    truth = np.repeat(np.arange(6), counts)
    expected = [0.534, 0.790, 0.836, 0.940, 0.989, 1.0]
    np.testing.assert_allclose(Crest(1 / 3).shares(truth, 6), expected, atol=6e-4)


def test_crest_accepts_the_most_confident_of_each_class() -> None:
    policy = Crest(alpha=1.0)
    rows = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6]]
    labels = policy.select(said(rows), judged=JUDGED, truth=np.array([0, 0, 1, 1, 1, 1]), round_index=1)
    # class 1 leads with 4 labels: it keeps 2/4 of its two clips; class 0 all four
    assert labels.clip_ids.tolist() == ["c000000", "c000001", "c000002", "c000003", "c000004"]


def test_cbst_renormalises_the_argmax_by_each_class_threshold() -> None:
    rows = [[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.48, 0.52]]
    labels = Cbst(Growing(0.5, 0.0, 0.5)).select(said(rows), judged=JUDGED, truth=TRUTH, round_index=1)
    # class 0 wins 3, rank ceil(1.5) = 2: t_0 = .8; class 1 wins 1: t_1 = .52. The third clip: .55/.8 = .6875 < .45/.52 = .865,
    # so it now counts as class 1, and is not accepted, for .865 < 1
    np.testing.assert_allclose(labels.thresholds, [0.8, 0.52], atol=1e-6)
    assert labels.clip_ids.tolist() == ["c000000", "c000001", "c000003"]
    assert labels.labels.tolist() == [0, 0, 1]


def test_a_growing_share_starts_in_round_one_and_stops_at_most() -> None:
    assert [Growing(0.2, 0.05, 0.3).at(round_index) for round_index in (1, 2, 3, 4)] == pytest.approx([0.2, 0.25, 0.3, 0.3])


def test_quotas_keep_a_favoured_class_from_crowding_out_the_others() -> None:
    rows = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]
    policy = QuotaShare(Growing(1.0, 0.0, 1.0), even=True)
    assert chosen(policy, rows) == ["c000000", "c000001", "c000003"]


def test_ups_asks_for_confidence_and_certainty() -> None:
    pool = said([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], uncertainty=np.array([0.01, 0.2, 0.01], np.float32))
    labels = Ups(0.7, 0.05).select(pool, judged=JUDGED, truth=TRUTH, round_index=1)
    assert labels.clip_ids.tolist() == ["c000000"]


def test_ups_without_uncertainty_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="ensemble"):
        Ups().select(said([[0.9, 0.1]]), judged=JUDGED, truth=TRUTH, round_index=1)


def test_equal_confidences_go_to_the_smaller_clip_id_whatever_the_row_order() -> None:
    ids = ["d", "b", "a", "c"]
    pool = said([[0.8, 0.2]] * 4, ids)
    labels = QuotaShare(Growing(0.5, 0.0, 0.5)).select(pool, judged=JUDGED, truth=np.array([0, 1]), round_index=1)
    assert labels.clip_ids.tolist() == ["a"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.5, 0.5000001, 0.9]), max_size=30), st.integers(0, 35))
def test_most_confident_takes_exactly_the_count_asked(values: list[float], count: int) -> None:
    confidence = np.array(values, np.float32)
    mask = most_confident(confidence, count)
    assert mask.sum() == min(count, len(values))
    if mask.any() and not mask.all():
        assert confidence[mask].min() >= confidence[~mask].max() - 1e-6


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_gives_sorted_labels_whose_rows_sum_to_one(name: str) -> None:
    labels = select(POLICIES[name], 500)
    assert 0 < len(labels) <= 500
    assert (labels.clip_ids[1:] > labels.clip_ids[:-1]).all()
    np.testing.assert_allclose(labels.targets.sum(axis=1), 1, atol=1e-5)
    assert labels.round_index == 2
    assert ((labels.weights > 0) & (labels.weights <= 1)).all()
    assert np.isfinite(labels.thresholds).all()


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_the_same_whatever_the_order_of_the_pool(name: str) -> None:
    policy = POLICIES[name]
    pool = replace(random_pool(300, 6, seed=5), uncertainty=np.linspace(0, 0.3, 300).astype(np.float32))
    judged, truth = random_pool(40, 6, seed=6), np.arange(40) % 6
    shuffled = pool.rows(np.random.default_rng(0).permutation(300))
    first = policy.select(pool, judged=judged, truth=truth, round_index=1)
    second = policy.select(shuffled, judged=judged, truth=truth, round_index=1)
    assert first.clip_ids.tobytes() == second.clip_ids.tobytes()
    np.testing.assert_allclose(first.targets, second.targets, atol=1e-6)
    np.testing.assert_allclose(first.weights, second.weights, atol=1e-6)


@pytest.mark.parametrize("clips", [0, 1])
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_bears_an_empty_pool_and_a_pool_of_one(name: str, clips: int) -> None:
    labels = select(POLICIES[name], clips)
    assert len(labels) <= clips
    assert labels.targets.shape == (len(labels), 6)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_bears_a_class_nobody_wins_and_nobody_labelled(name: str) -> None:
    pool = replace(said([[0.9, 0.1, 0.0]] * 30 + [[0.2, 0.8, 0.0]] * 30), uncertainty=np.full(60, 0.01, np.float32))
    judged, truth = said([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]] * 10), np.array([0, 1] * 10)
    labels = POLICIES[name].select(pool, judged=judged, truth=truth, round_index=1)
    assert 2 not in labels.labels
    assert np.isfinite(labels.thresholds).all()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: FixedThreshold(1.5), "1.5"),
        (lambda: Growing(0.0), "0.0"),
        (lambda: FreeMatch(1.0), "1.0"),
        (lambda: Aligned(Cbst(), to="odd"), "odd"),
        (lambda: Soft(Cbst(), temperature=0.0), "0.0"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_value(make: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()  # type: ignore[operator]
