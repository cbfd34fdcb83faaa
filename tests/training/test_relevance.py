"""Streams are read as loudly as they tell of the label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from orchestrator.training.columns import Columns
from orchestrator.training.relevance import FAINTEST, loudness

C, CLIPS, WIDTH = 4, 120, 10
TRUTH = np.arange(CLIPS) % C


def columns(**strengths: float) -> Columns:
    """Streams of noise in which the class shows with a strength."""
    rng = np.random.default_rng(1)
    values = {
        stream: torch.from_numpy(
            (strength * rng.normal(size=(C, WIDTH))[TRUTH] + rng.normal(size=(CLIPS, WIDTH))).astype("float32")
        )
        for stream, strength in strengths.items()
    }
    return Columns(values, torch.ones(CLIPS, len(values), dtype=torch.bool))


def most_evident(data: Columns) -> NDArray[np.float64]:
    """Prior variances by direct maximisation: the classes are Gaussian with covariance sum_s a_s X_s X_s' / D + noise."""
    kernels = [(rows.double() @ rows.double().T / WIDTH).numpy() for rows in data.values.values()]
    wanted = np.eye(C)[TRUTH] - np.eye(C)[TRUTH].mean(axis=0)

    def surprise(logs: NDArray[np.float64]) -> float:
        covariance = sum(np.exp(log) * kernel for log, kernel in zip(logs, kernels, strict=False)) + np.exp(logs[-1]) * np.eye(
            CLIPS
        )
        root = np.linalg.cholesky(covariance)
        return float(0.5 * np.square(np.linalg.solve(root, wanted)).sum() + C * np.log(np.diag(root)).sum())

    found = minimize(surprise, np.full(len(kernels) + 1, -2.0), method="L-BFGS-B", bounds=[(-14, 2)] * (len(kernels) + 1))
    return np.asarray(np.exp(found.x[:-1]))


def test_loudness_is_where_the_evidence_of_a_linear_model_is_greatest() -> None:
    data = columns(audio=0.9, video=0.5, text=0.3)
    variances = most_evident(data)
    expected = np.sqrt(variances / variances.max())
    np.testing.assert_allclose(list(loudness(data, TRUTH, C).values()), expected, atol=0.02)
    assert sorted(expected.round(2)) == pytest.approx(expected[::-1].round(2))  # the weaker the signal, the softer


def test_a_stream_of_noise_is_read_softly_and_never_silenced() -> None:
    gains = loudness(columns(audio=1.0, video=0.0), TRUTH, C)
    assert gains["audio"] == 1
    assert FAINTEST <= gains["video"] < 0.3


def test_a_stream_that_no_labelled_clip_has_is_read_at_its_faintest() -> None:
    data = columns(audio=1.0, video=1.0)
    data.values["video"].zero_()
    assert loudness(data, TRUTH, C) == pytest.approx({"audio": 1, "video": FAINTEST}, abs=0.01)


@pytest.mark.parametrize("truth", [np.zeros(CLIPS, np.int64), TRUTH], ids=["one class", "streams that never vary"])
def test_where_nothing_can_be_told_streams_are_alike(truth: NDArray[np.int64]) -> None:
    data = columns(audio=1.0, video=1.0)
    if truth is TRUTH:
        data = Columns({stream: torch.zeros_like(rows) for stream, rows in data.values.items()}, data.present)
    assert loudness(data, truth, C) == {"audio": 1, "video": 1}
