from __future__ import annotations

import numpy as np
import pytest

from orchestrator.rounds.evidence import evidence_weights, weighed


def voices(clips: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """One voice that knows, one that guesses as loudly."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, clips)
    knows = rng.normal(size=(clips, 4)) + 2 * np.eye(4)[truth]
    guesses = rng.normal(size=(clips, 4)) + 2 * np.eye(4)[rng.integers(0, 4, clips)]
    return np.stack([knows, guesses]), truth


def test_a_voice_that_guesses_is_silenced_and_one_that_knows_is_heard() -> None:
    said, truth = voices()
    weights = evidence_weights(said, truth)
    assert weights[1] < 0.25 * weights[0]
    right = (weighed(said, weights).argmax(axis=1) == truth).mean()
    assert right > (said.sum(axis=0).argmax(axis=1) == truth).mean() + 0.1


def test_weights_of_exact_evidence_are_one() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 20_000)
    said = np.stack([2 * (rng.normal(size=(20_000, 3)) + 2 * np.eye(3)[truth]) for _ in range(2)])  # the Bayes logits
    np.testing.assert_allclose(evidence_weights(said, truth), 1, atol=0.05)


def test_a_voice_that_never_speaks_changes_nothing() -> None:
    said, truth = voices()
    silent = np.concatenate([said, np.zeros((1, *said.shape[1:]))])
    weights = evidence_weights(silent, truth)
    np.testing.assert_allclose(weighed(silent, weights), weighed(said, weights[:2]))
    assert weights[1] < 0.25 * weights[0]


def test_a_strong_prior_leaves_all_voices_equal_and_so_do_no_clips() -> None:
    said, truth = voices()
    first, second = evidence_weights(said, truth, strength=1e9)
    assert first == pytest.approx(second, rel=1e-4)
    assert evidence_weights(said[:, :0], truth[:0]).tolist() == [1.0, 1.0]
