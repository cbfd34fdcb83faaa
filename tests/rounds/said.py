"""Predictions with probabilities one can read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Predictions


def said(
    probabilities: Sequence[Sequence[float]] | NDArray[np.float64], ids: Sequence[str] | None = None, **more: object
) -> Predictions:
    """A calibrated teacher that says exactly these probabilities `(N, C)`."""
    rows = np.asarray(probabilities, np.float64)
    names = np.array(ids if ids is not None else [f"c{row:06d}" for row in range(len(rows))], np.str_)
    return Predictions(names, np.log(np.maximum(rows, 1e-30)).astype(np.float32), "teacher", **more)  # type: ignore[arg-type]


def random_pool(clips: int, classes: int, seed: int, sharpness: float = 3.0) -> Predictions:
    """A pool of random logits in clip order."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(clips, classes)) * sharpness).astype(np.float32)
    return Predictions(np.array([f"c{row:08d}" for row in range(clips)]), logits, "teacher")
