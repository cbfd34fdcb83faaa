"""How much each voice's word is worth: one exponent a voice, learnt out of fold.

Experts of single modalities add their logits as independent evidence would. But an expert that memorised its few labels shouts as
loud as one that understood: with 102 labelled clips the lines' text cost the sum of face, voice and text more than it gave. The
weights are fitted where every voice speaks of clips it has not seen, so what was memorised counts for nothing.

    logits (V, N, C), out of fold, truth (N,)  ──►  weights (V,)  ──►  sum of weights[v] * logits[v]

V numbers are learnt from all folds' labels, no more than a temperature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from orchestrator.vocabulary import Floats, Ints, softmax


def evidence_weights(voices: Floats, truth: Ints, *, strength: float = 20.0) -> NDArray[np.float64]:
    """Weights `(V,)`, positive: argmin of the mean NLL of softmax(sum of w_v z_v), log weights drawn together.

    `voices` `(V, N, C)` are out of fold; a voice that cannot speak of a clip has a row of zeros there (Hinton 2002's product of
    experts with exponents). `strength`: labelled clips the prior weighs as much as; with less, 32 clips teach it noise. Without
    clips all weigh 1.
    """
    if not len(truth):
        return np.ones(len(voices))
    logits = voices.astype(np.float64)
    hits = np.eye(voices.shape[2])[truth]  # (N, C)
    pull = strength / len(truth)

    def loss(log_weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = np.exp(log_weights)
        probabilities = softmax(np.tensordot(weights, logits, 1))
        fits = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-300)).mean()
        gradient = weights * np.einsum("vnc,nc->v", logits, probabilities - hits) / len(truth)
        apart = log_weights - log_weights.mean()  # their common scale is free: it is a temperature
        return float(fits + 0.5 * pull * apart @ apart), gradient + pull * apart

    found = minimize(loss, np.zeros(len(voices)), jac=True, method="L-BFGS-B", bounds=[(-5.0, 5.0)] * len(voices))
    return np.asarray(np.exp(found.x))


def weighed(voices: Floats, weights: Floats) -> NDArray[np.float32]:
    """Weighted sum `(N, C)` of voices `(V, N, C)`."""
    return np.asarray(np.tensordot(weights, voices, 1), dtype=np.float32)
