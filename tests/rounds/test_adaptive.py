"""Adaptive thresholds against worked examples and against a transcription of the papers' formulas, loop by loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.rounds.adaptive import FlexMatch, FlexState, FreeMatch, FreeState, SoftMatch, SoftState
from tests.rounds.said import said

STEPS, BATCH, CLIPS, C = 1000, 7, 60, 4
NOBODY = said(np.zeros((0, 2)))


def random_probabilities(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.asarray(rng.dirichlet(np.full(C, 0.3), size=count))


def test_flexmatch_equals_a_transcription_for_a_thousand_steps() -> None:
    rng = np.random.default_rng(0)
    state, seen, tau = FlexState.start(CLIPS, C), [-1] * CLIPS, 0.9
    for _ in range(STEPS):
        rows = rng.choice(CLIPS, rng.integers(0, BATCH), replace=False)
        q = random_probabilities(rng, len(rows))
        for row, probabilities in zip(rows.tolist(), q.tolist(), strict=True):
            if max(probabilities) >= tau:
                seen[row] = probabilities.index(max(probabilities))
        sigma = [sum(taken == c for taken in seen) for c in range(C)]
        unused = sum(taken == -1 for taken in seen)
        beta = [s / max(max(sigma), unused) for s in sigma]
        expected = [tau * b / (2 - b) for b in beta]
        state = state.step(rows, q.argmax(axis=1), q.max(axis=1), tau)
        np.testing.assert_allclose(state.thresholds(tau), expected, atol=1e-6)


def test_freematch_equals_a_transcription_for_a_thousand_steps() -> None:
    rng = np.random.default_rng(1)
    state, tau, p, momentum = FreeState.start(C), 1 / C, [1 / C] * C, 0.99
    for _ in range(STEPS):
        q = random_probabilities(rng, int(rng.integers(1, BATCH)))
        tau = momentum * tau + (1 - momentum) * sum(max(row) for row in q.tolist()) / len(q)
        p = [momentum * p[c] + (1 - momentum) * sum(row[c] for row in q.tolist()) / len(q) for c in range(C)]
        state = state.step(float(q.max(axis=1).mean()), q.mean(axis=0), momentum)
        np.testing.assert_allclose(state.thresholds(), [tau * value / max(p) for value in p], atol=1e-6)


def test_softmatch_equals_a_transcription_for_a_thousand_steps() -> None:
    rng = np.random.default_rng(2)
    state, mu, variance, momentum = SoftState.start(C), 1 / C, 1.0, 0.99
    for _ in range(STEPS):
        top = random_probabilities(rng, int(rng.integers(2, BATCH))).max(axis=1)
        mean = sum(top.tolist()) / len(top)
        mu = momentum * mu + (1 - momentum) * mean
        variance = momentum * variance + (1 - momentum) * sum((m - mean) ** 2 for m in top.tolist()) / (len(top) - 1)
        state = state.step(top, momentum)
        expected = [math.exp(-(min(m - mu, 0) ** 2) / (2 * variance / 2**2)) for m in top.tolist()]
        np.testing.assert_allclose(state.weights(top), expected, atol=1e-6)


def test_flexmatch_by_hand() -> None:
    # four clips, threshold .8: 0 twice, 1 once, one never. beta = (1, .5), thresholds .8 and .8 * .5 / 1.5 = .2667
    pool = said([[0.9, 0.1], [0.85, 0.15], [0.1, 0.9], [0.4, 0.6]])
    labels = FlexMatch(0.8).select(pool, judged=NOBODY, truth=np.zeros(0, int), round_index=1)
    np.testing.assert_allclose(labels.thresholds, [0.8, 0.8 / 3], atol=1e-6)
    assert labels.labels.tolist() == [0, 0, 1, 1]


def test_flexmatch_warms_up_while_most_clips_were_never_taken() -> None:
    # one clip of class 0 taken, three never: beta_0 = 1/3, threshold .9 * (1/3) / (5/3) = .18
    state = FlexState.start(4, 2).step(np.array([2]), np.array([0]), np.array([0.95]), 0.9)
    np.testing.assert_allclose(state.thresholds(0.9), [0.18, 0.0], atol=1e-9)


def test_freematch_by_hand() -> None:
    # mean top .75, mean (.5, .5); after one round with momentum .5 from 1/2: tau .625 for both classes
    pool = said([[0.8, 0.2], [0.2, 0.8], [0.7, 0.3], [0.3, 0.7]])
    one = FreeMatch(0.5).select(pool, judged=NOBODY, truth=np.zeros(0, int), round_index=1)
    two = FreeMatch(0.5).select(pool, judged=NOBODY, truth=np.zeros(0, int), round_index=2)
    np.testing.assert_allclose(one.thresholds, 0.625, atol=1e-6)
    np.testing.assert_allclose(two.thresholds, 0.6875, atol=1e-6)


def test_freematch_asks_less_of_a_class_that_is_seldom_named() -> None:
    pool = said([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    thresholds = FreeMatch().select(pool, judged=NOBODY, truth=np.zeros(0, int), round_index=3).thresholds
    assert thresholds[1] < thresholds[0]


def test_softmatch_by_hand() -> None:
    # tops .9 and .6: mean .75, unbiased variance .045. Momentum 0: the first weighs 1,
    # the second exp(-.0225 * 4 / (2 * .045)) = exp(-1)
    pool = said([[0.9, 0.1], [0.6, 0.4]])
    labels = SoftMatch(momentum=0.0, aligned=False).select(pool, judged=NOBODY, truth=np.zeros(0, int), round_index=1)
    np.testing.assert_allclose(labels.weights, [1.0, math.exp(-1)], atol=1e-5)


def test_uniform_alignment_moves_the_weights_and_not_the_labels() -> None:
    pool = said([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45]])
    plain = SoftMatch(aligned=False).select(pool, judged=NOBODY, truth=np.zeros(0, int), round_index=1)
    aligned = SoftMatch(aligned=True).select(pool, judged=NOBODY, truth=np.zeros(0, int), round_index=1)
    assert aligned.labels.tolist() == plain.labels.tolist() == [0, 0, 0]
    assert not np.allclose(aligned.weights, plain.weights)


def test_an_empty_batch_changes_nothing_and_a_batch_of_one_has_no_variance() -> None:
    assert SoftState.start(C).step(np.zeros(0), 0.5) == SoftState.start(C)
    assert SoftState.start(C).step(np.array([0.9]), 0.5) == SoftState(0.5 * 0.25 + 0.45, 1.0)
    assert FreeState.start(C).step(float("nan"), np.zeros(C), 0.5).overall == 1 / C
    nobody = np.zeros(0, int)
    assert FlexState.start(3, C).step(nobody, nobody, np.zeros(0), 0.9).thresholds(0.9).tolist() == [0.0] * C


def test_a_momentum_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\)"):
        SoftMatch(momentum=1.0)


@pytest.mark.parametrize("policy", [FlexMatch(0.8), FreeMatch(), SoftMatch(), SoftMatch(aligned=False)], ids=repr)
@pytest.mark.parametrize("clips", [0, 1, 5])
def test_a_class_nobody_wins_and_a_pool_of_none_or_one_break_nothing(
    policy: FlexMatch | FreeMatch | SoftMatch, clips: int
) -> None:
    pool = said(np.repeat([[1.0, 0.0, 0.0]], clips, axis=0))
    labels = policy.select(pool, judged=NOBODY, truth=np.zeros(3, int), round_index=2)
    assert np.isfinite(labels.thresholds).all()
    assert np.isfinite(labels.weights).all()
    assert set(labels.labels.tolist()) <= {0}
