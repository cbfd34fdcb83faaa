"""Scores of a classifier: the ones the field reports, computed by scikit-learn where it has them.

WAF is the weighted F1 that ranks MER2024; UAR the unweighted average recall of the speech-emotion literature. A class nobody
predicted scores 0, silently: an empty class is a result, not a warning.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from orchestrator.vocabulary import Floats, Ints


def waf(truth: Ints, predicted: Ints) -> float:
    """Weighted F1: sum over classes of (n_c / N) F1_c."""
    return float(f1_score(truth, predicted, average="weighted", zero_division=0))


def uar(truth: Ints, predicted: Ints) -> float:
    """Mean recall over the classes that occur in `truth`."""
    return float(recall_score(truth, predicted, average="macro", labels=np.unique(truth), zero_division=0))


def scores(truth: Ints, predicted: Ints) -> Mapping[str, float]:
    """`waf`, `uar` and `accuracy` of one set of predictions."""
    return {"waf": waf(truth, predicted), "uar": uar(truth, predicted), "accuracy": float(accuracy_score(truth, predicted))}


def confusion(truth: Ints, predicted: Ints, classes: int) -> NDArray[np.int64]:
    """Counts `(C, C)`: rows are the truth, columns the prediction."""
    return np.asarray(confusion_matrix(truth, predicted, labels=np.arange(classes)), dtype=np.int64)


def reliability(confidence: Floats, correct: Ints, bins: int = 15) -> NDArray[np.float64]:
    """Rows of a reliability diagram, `(bins, 3)`: mean confidence, accuracy, share of clips. Empty bins are zeros."""
    index = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = np.maximum(count, 1)
    mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / filled
    accuracy = np.bincount(index, weights=correct, minlength=bins) / filled
    return np.stack([mean_confidence, accuracy, count / max(1, len(confidence))], axis=1)


def ece(probabilities: Floats, truth: Ints, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al. 2017, eq. 3)."""
    correct = (probabilities.argmax(axis=1) == truth).astype(float)
    rows = reliability(probabilities.max(axis=1), correct, bins)
    return float((np.abs(rows[:, 0] - rows[:, 1]) * rows[:, 2]).sum())
