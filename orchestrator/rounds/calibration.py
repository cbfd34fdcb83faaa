"""Make a teacher's confidence mean what it says, on human labels it has not seen.

Fitted on out-of-fold logits and applied to the pool as well: `Predictions.scale` and `.bias` carry it, the logits stay as they
were. The pool's logits are a fold mean and a little flatter than one fold's, so the pool comes out slightly underconfident:
the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from orchestrator.vocabulary import Floats, Ints, Predictions, softmax

_LOG_TEMPERATURE = (np.log(0.02), np.log(50.0))  # a temperature outside is a broken model, not a badly calibrated one


def nll(logits: Floats, truth: Ints) -> float:
    """Mean negative log-likelihood of `(N, C)` logits."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(truth)), truth].mean())


class Calibration(Protocol):
    """Scale and bias, `(1,)` or `(C,)`, such that softmax(logits * scale + bias) fits the truth."""

    def fit(self, logits: Floats, truth: Ints) -> tuple[Floats, Floats]: ...


@dataclass(frozen=True, slots=True)
class AsIs:
    """No calibration: the ablation."""

    def fit(self, logits: Floats, truth: Ints) -> tuple[Floats, Floats]:
        return np.ones(1, np.float32), np.zeros(1, np.float32)


@dataclass(frozen=True, slots=True)
class Temperature:
    """One temperature for all classes: argmin_T NLL(softmax(z / T)) (Guo et al. 2017, eq. 9). Never changes a winner."""

    def fit(self, logits: Floats, truth: Ints) -> tuple[Floats, Floats]:
        if not len(truth):
            return AsIs().fit(logits, truth)
        found = minimize_scalar(
            lambda log_t: nll(logits * np.exp(-log_t), truth), bounds=_LOG_TEMPERATURE, method="bounded", options={"xatol": 1e-6}
        )
        return np.full(1, np.exp(-found.x), np.float32), np.zeros(1, np.float32)


@dataclass(frozen=True, slots=True)
class VectorScaling:
    """A scale and a bias for each class (Guo et al. 2017, section 4.2), drawn towards plain temperature by a Gaussian prior.

    - `strength`: labelled clips the prior weighs as much as; without it a class of few clips would be fitted to noise.
    """

    strength: float = 10.0

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ValueError(f"calibration strength must be at least 0, got {self.strength}")

    def fit(self, logits: Floats, truth: Ints) -> tuple[Floats, Floats]:
        start, _ = Temperature().fit(logits, truth)
        classes = logits.shape[1]
        if not len(truth):
            return start, np.zeros(1, np.float32)
        rows = logits.astype(np.float64) * start  # (N, C) near scale 1, where the prior is centred
        hits = np.eye(classes)[truth]  # (N, C)

        def loss(packed: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            log_scale, bias = packed[:classes], packed[classes:]
            scaled = rows * np.exp(log_scale) + bias
            surplus = (softmax(scaled) - hits) / len(truth)  # (N, C)
            pull = self.strength / len(truth)
            gradient = np.concatenate([(surplus * rows).sum(0) * np.exp(log_scale), surplus.sum(0)]) + pull * packed
            return nll(scaled, truth) + 0.5 * pull * float(packed @ packed), gradient

        packed = minimize(loss, np.zeros(2 * classes), jac=True, method="L-BFGS-B").x
        return (start * np.exp(packed[:classes])).astype(np.float32), packed[classes:].astype(np.float32)


def calibrated(predictions: Predictions, scale: Floats, bias: Floats) -> Predictions:
    """The same logits, read through another scale and bias."""
    return replace(predictions, scale=scale, bias=bias)
