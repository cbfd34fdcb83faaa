from __future__ import annotations

import numpy as np
import pytest

from orchestrator.rounds.alignment import Aligned, Soft, mean_probability, prior_by_em
from orchestrator.rounds.consensus import Agreement, FirstFrom, with_voice
from orchestrator.rounds.selection import FixedThreshold
from orchestrator.vocabulary import Predictions
from tests.rounds.said import random_pool, said

JUDGED, TRUTH = said([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
ANYONE = FixedThreshold(0.01)


def pool_with(votes: list[list[int]]) -> Predictions:
    """Clips the teacher takes for class 0, with the votes of three voices."""
    return said([[0.9, 0.1]] * len(votes), votes=np.array(votes, np.int8), voices=("A", "V", "T"))


def passed(policy: Agreement, votes: list[list[int]]) -> list[int]:
    labels = policy.select(pool_with(votes), judged=JUDGED, truth=TRUTH, round_index=1)
    return [int(name[1:]) for name in labels.clip_ids]


def test_k_of_n_voices_must_name_the_teachers_class() -> None:
    assert passed(Agreement(ANYONE, least=2), [[0, 0, 1], [0, 1, 1], [0, 0, 0], [1, 1, 1]]) == [0, 2]


def test_a_voice_that_cannot_speak_is_neither_for_nor_against() -> None:
    assert passed(Agreement(ANYONE, least=2), [[0, -1, 0], [0, -1, -1], [1, -1, -1], [-1, -1, -1], [0, 1, -1]]) == [0, 1]
    assert passed(Agreement(ANYONE, least=2, of_those_who_speak=False), [[0, -1, 0], [0, -1, -1]]) == [0]


def test_only_the_voices_asked_for_count() -> None:
    assert passed(Agreement(ANYONE, least=1, voices=("T",)), [[1, 1, 0], [0, 0, 1]]) == [0]


def test_a_missing_voice_is_named() -> None:
    with pytest.raises(ValueError, match="llama"):
        passed(Agreement(ANYONE, least=1, voices=("llama",)), [[0, 0, 0]])
    with pytest.raises(ValueError, match=r"needs Predictions\.votes"):
        Agreement(ANYONE).select(said([[0.9, 0.1]]), judged=JUDGED, truth=TRUTH, round_index=1)


def test_an_external_teacher_gates_the_clips_it_answered_and_agrees_on() -> None:
    pool = said([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], ["a", "b", "c"])
    heard = with_voice(pool, "llama", said([[0.2, 0.8], [0.7, 0.3]], ["b", "c"]))
    assert heard.votes is not None
    assert heard.votes[:, 0].tolist() == [-1, 1, 0]  # "a" was never answered
    labels = Agreement(ANYONE, least=1, voices=("llama",)).select(heard, judged=JUDGED, truth=TRUTH, round_index=1)
    assert labels.clip_ids.tolist() == ["c"]


def test_a_voice_can_be_added_once_and_may_have_answered_nothing() -> None:
    silent = with_voice(pool_with([[0, 0, 0]]), "llama", said(np.zeros((0, 2))))
    assert silent.voices == ("A", "V", "T", "llama")
    assert silent.votes is not None
    assert silent.votes.tolist() == [[0, 0, 0, -1]]
    with pytest.raises(ValueError, match="'A' is there already"):
        with_voice(silent, "A", said(np.zeros((0, 2))))


def test_an_external_labeller_teaches_round_1_and_the_policy_the_rest() -> None:
    pool = said([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    speaker = said([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9]], ids=["c000002", "c000000", "elsewhere"])
    policy = FirstFrom(FixedThreshold(0.75), speaker)
    first, second = (policy.select(pool, judged=pool, truth=np.array([0, 1, 0]), round_index=r) for r in (1, 2))
    assert list(zip(first.clip_ids.tolist(), first.labels.tolist(), strict=True)) == [("c000000", 0), ("c000002", 1)]
    assert second.clip_ids.tolist() == ["c000000", "c000001"]


def test_alignment_makes_the_mean_prediction_more_like_the_target() -> None:
    pool = said([[0.8, 0.2]] * 30 + [[0.4, 0.6]] * 10)
    aligned = Aligned(ANYONE, to="even").aligned(pool, TRUTH, 1)
    assert abs(mean_probability(aligned)[0] - 0.5) < abs(mean_probability(pool)[0] - 0.5)
    # q' = Norm(q * u / mean q): mean q = (.7, .3), so (.8/.7, .2/.3) normalised
    odds = np.array([0.8 / 0.7, 0.2 / 0.3])
    np.testing.assert_allclose(aligned.probabilities[0], odds / odds.sum(), atol=1e-5)


def test_alignment_power_falls_linearly_over_the_rounds() -> None:
    pool = said([[0.8, 0.2]] * 4)
    progressive = Aligned(ANYONE, to="even", power=1.0, last=0.0, rounds=3)
    shifts = [progressive.aligned(pool, TRUTH, round_index).bias for round_index in (1, 2, 3, 4)]
    np.testing.assert_allclose(shifts[1], shifts[0] / 2, atol=1e-6)
    np.testing.assert_allclose(shifts[2:], 0, atol=1e-6)


def test_em_finds_the_prior_of_a_skewed_pool_from_a_teacher_trained_on_even_classes() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, size=4000, p=[0.7, 0.2, 0.1])
    points = rng.normal(size=(4000, 3)) + 1.5 * np.eye(3)[truth]
    ids = np.array([f"c{row:04d}" for row in range(4000)])
    pool = Predictions(ids, (1.5 * points).astype(np.float32), "exact")  # Bayes under even classes
    np.testing.assert_allclose(prior_by_em(pool, np.full(3, 1 / 3)), [0.7, 0.2, 0.1], atol=0.03)


def test_soft_targets_are_the_aligned_probabilities_of_the_accepted_clips() -> None:
    pool = random_pool(40, 3, seed=1)
    labels = Soft(FixedThreshold(0.8)).select(pool, judged=JUDGED, truth=TRUTH, round_index=1)
    rows = np.searchsorted(pool.clip_ids, labels.clip_ids)
    np.testing.assert_allclose(labels.targets, pool.probabilities[rows], atol=1e-6)
    sharper = Soft(FixedThreshold(0.8), temperature=0.5).select(pool, judged=JUDGED, truth=TRUTH, round_index=1)
    assert (sharper.targets.max(axis=1) >= labels.targets.max(axis=1)).all()


def test_soft_targets_carry_the_correction_of_an_alignment_they_wrap_and_are_wrapped_by() -> None:
    pool = said([[0.8, 0.2]] * 3 + [[0.45, 0.55]])
    outside = Aligned(Soft(ANYONE), to="even").select(pool, judged=JUDGED, truth=TRUTH, round_index=1)
    np.testing.assert_allclose(outside.targets, Aligned(ANYONE, to="even").aligned(pool, TRUTH, 1).probabilities, atol=1e-6)
