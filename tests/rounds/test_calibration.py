from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.metrics import ece
from orchestrator.rounds.calibration import AsIs, Calibration, Temperature, VectorScaling, calibrated, nll
from orchestrator.vocabulary import softmax
from tests.rounds.said import random_pool


def drawn(temperature: float, bias: float = 0.0, clips: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature + bias on class 0)."""
    logits = random_pool(clips, 4, seed=0).logits
    probabilities = softmax(logits / temperature + bias * np.eye(4)[0])
    rng = np.random.default_rng(1)
    return logits, (probabilities.cumsum(axis=1) > rng.random((clips, 1))).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_labels_were_drawn_with_is_found_again(temperature: float) -> None:
    logits, truth = drawn(temperature)
    scale, bias = Temperature().fit(logits, truth)
    assert 1 / scale[0] == pytest.approx(temperature, rel=0.08)
    assert bias.tolist() == [0.0]


@pytest.mark.parametrize("method", [Temperature(), VectorScaling()])
def test_calibration_lowers_the_calibration_error_of_an_overconfident_teacher(method: Calibration) -> None:
    logits, truth = drawn(3.0)
    scale, bias = method.fit(logits, truth)
    assert ece(softmax(logits * scale + bias), truth) < 0.3 * ece(softmax(logits), truth)


def test_vector_scaling_finds_a_bias_that_temperature_cannot() -> None:
    logits, truth = drawn(1.0, bias=2.0)
    scale, bias = VectorScaling().fit(logits, truth)
    assert bias[0] - bias[1:].mean() == pytest.approx(2.0, abs=0.3)
    warmed, _ = Temperature().fit(logits, truth)
    assert nll(logits * scale + bias, truth) < nll(logits * warmed, truth) - 0.05


def test_a_strong_prior_draws_vector_scaling_back_to_temperature() -> None:
    logits, truth = drawn(2.0, bias=1.0, clips=40)
    scale, bias = VectorScaling(strength=1e6).fit(logits, truth)
    np.testing.assert_allclose(scale, np.full(4, Temperature().fit(logits, truth)[0][0]), rtol=1e-3)
    np.testing.assert_allclose(bias, 0, atol=1e-3)


def test_temperature_never_changes_a_winner_and_logits_stay_as_they_were() -> None:
    pool = random_pool(50, 4, seed=2)
    after = calibrated(pool, *Temperature().fit(*drawn(3.0)))
    assert (after.probabilities.argmax(axis=1) == pool.probabilities.argmax(axis=1)).all()
    assert after.logits is pool.logits


@pytest.mark.parametrize("method", [AsIs(), Temperature(), VectorScaling()])
def test_without_human_labels_probabilities_stay_as_they_are(method: Calibration) -> None:
    scale, bias = method.fit(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    pool = random_pool(5, 4, seed=0)
    np.testing.assert_allclose(replace(pool, scale=scale, bias=bias).probabilities, pool.probabilities)
