"""From what each clip gave, or failed to give, to one `Encoded`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import DecodedClip, Encoded, Floats


def encoded(
    stream: str,
    clips: Sequence[DecodedClip],
    rows: Sequence[Floats | None],
    width: int,
    flags: Mapping[str, tuple[str, ...]] | None = None,
) -> Encoded:
    """Stack one row `(D,)` a clip; None is a clip that lacks what the encoder reads: zeros, present off."""
    values = np.zeros((len(clips), width), np.float32)  # (B, D)
    for i, row in enumerate(rows):
        if row is not None:
            values[i] = row
    present = np.array([row is not None for row in rows], bool)  # (B,)
    return Encoded(stream, tuple(clip.clip_id for clip in clips), values, present, flags or {})


def pooled(steps: Floats, pooling: str) -> NDArray[np.float32]:
    """Steps `(T, D)` to one row: their mean `(D,)`, or mean and standard deviation `(2 D,)`."""
    mean = steps.mean(axis=0, dtype=np.float64)
    parts = [mean] if pooling == "mean" else [mean, steps.std(axis=0, dtype=np.float64)]
    return np.concatenate(parts).astype(np.float32)
