"""Stored features as the trainer reads them: standardised minibatches by row index, absent streams zero.

    Features (float16 or float32, also memory-mapped)  ──►  Columns.batch(index)  ──►  {stream: (B, D) float32}, present (B, M)

Features stay as they are stored; a minibatch is gathered, standardised and masked on its way.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.errors import Diverged
from orchestrator.vocabulary import Features

CHUNK = 2048  # rows looked at together where all rows are walked
FURTHEST = 8.0  # standard deviations; what lies beyond is an artefact of the encoder, not an emotion


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and inverse deviation of every feature over the clips that have it: `mean[stream]`, `inverse[stream]` `(D,)`.

    A constant feature gets inverse 0 and so says nothing. Labels play no part, so every row may be looked at.
    """

    mean: Mapping[str, Tensor]
    inverse: Mapping[str, Tensor]

    @property
    def dims(self) -> dict[str, int]:
        return {stream: len(mean) for stream, mean in self.mean.items()}

    @classmethod
    def of(cls, parts: Sequence[Features]) -> Standard:
        """Raises Diverged when a value of a present stream is not finite."""
        mean, inverse = {}, {}
        for index, stream in enumerate(parts[0].values):
            middle, deviation = _moments([(part.values[stream], part.present[:, index]) for part in parts], stream)
            mean[stream] = torch.from_numpy(middle.astype(np.float32))
            alive = deviation > 1e-6 * (np.abs(middle) + 1e-6)
            inverse[stream] = torch.from_numpy((alive / np.where(alive, deviation, 1.0)).astype(np.float32))
        return cls(mean, inverse)


def _moments(parts: list[tuple[NDArray[np.floating], NDArray[np.bool_]]], stream: str) -> tuple[NDArray, NDArray]:  # type: ignore[type-arg]
    width = parts[0][0].shape[1]
    count, total, squares = 0, np.zeros(width), np.zeros(width)
    for values, present in parts:
        for start in range(0, len(values), CHUNK):
            rows = values[start : start + CHUNK][present[start : start + CHUNK]].astype(np.float64)
            count, total, squares = count + len(rows), total + rows.sum(axis=0), squares + np.square(rows).sum(axis=0)
    if not (np.isfinite(total).all() and np.isfinite(squares).all()):
        raise Diverged(f"features of stream {stream!r} hold values that are not finite; extract them again")
    mean = total / max(1, count)
    return mean, np.sqrt(np.maximum(squares / max(1, count) - np.square(mean), 0.0))


class Columns:
    """Features of N clips on a device, read by row index."""

    def __init__(self, features: Features, standard: Standard, device: torch.device) -> None:
        if features.streams != tuple(standard.mean):
            raise ValueError(f"the ensemble reads streams {list(standard.mean)}, got features of {list(features.streams)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # read-only arrays (memory maps, the object store) are only read
            self._values = {stream: torch.from_numpy(values).to(device) for stream, values in features.values.items()}
            self._present = torch.from_numpy(features.present).to(device)  # (N, M)
        self._mean = {stream: mean.to(device) for stream, mean in standard.mean.items()}
        self._inverse = {stream: inverse.to(device) for stream, inverse in standard.inverse.items()}

    def __len__(self) -> int:
        return len(self._present)

    def batch(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Standardised values `(B, D)` by stream, zero where absent, and presence `(B, M)`."""
        present = self._present[index]
        values = {}
        for column, (stream, stored) in enumerate(self._values.items()):
            rows = stored[index].to(torch.float32).sub_(self._mean[stream]).mul_(self._inverse[stream])
            values[stream] = rows.clamp_(-FURTHEST, FURTHEST).masked_fill_(~present[:, column, None], 0.0)
        return values, present
