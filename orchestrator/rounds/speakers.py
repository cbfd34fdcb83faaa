"""Take the speaker out of the features: each stream standardised within each speaker.

A face at rest and a voice's timbre differ more between people than an emotion moves them, so a model of a few speakers fails on
the next one. A speaker's own unlabelled clips say what is usual for them; no label is read. On `ravdess_av`, unseen actors, it is
worth 12 points WAF and more. It asks for several clips of a speaker that are not all of one emotion, at prediction too.

A speaker of n clips is drawn towards all others by `shrinkage` clips: with n = 1 little is known of what is usual. Of a clip
whose speaker is unknown ("") only that is known, what is usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Features, Floats, Ints, Names

ROWS = 4096  # standardised at once: double precision for all of a pool would be its memory four times over


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual over all clips a run knows: `mean` and `variance` `(D,)` of every stream."""

    mean: Mapping[str, NDArray[np.float64]]
    variance: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, features: Features) -> Usual:
        """Over the clips that have the stream; zeros where none has."""
        moments = {
            stream: _moments(features.values[stream], np.flatnonzero(features.present[:, column]))
            for column, stream in enumerate(features.streams)
        }
        return cls({stream: mean for stream, (mean, _) in moments.items()}, {stream: var for stream, (_, var) in moments.items()})


def within_speakers(features: Features, groups: Names, usual: Usual | None = None, *, shrinkage: float = 4.0) -> Features:
    """Features whose streams are standardised within each group, in the dtype they came in; absent rows stay as they are.

    `groups` `(N,)`. All clips that are to be compared go in together, labelled, unlabelled and test; clips that come later are
    compared through the `usual` of the first ones. Raises ValueError when lengths differ or `shrinkage` is negative.
    """
    if len(groups) != len(features) or shrinkage < 0:
        raise ValueError(f"{len(features)} clips need as many groups and a shrinkage >= 0, got {len(groups)} and {shrinkage}")
    usual = usual or Usual.of(features)
    values = {}
    for column, stream in enumerate(features.streams):
        rows = np.flatnonzero(features.present[:, column])
        mean, variance = usual.mean[stream], usual.variance[stream]
        values[stream] = _standardised(features.values[stream], rows, groups, mean, variance, shrinkage)
    return replace(features, values=values)


def _standardised(
    values: Floats, rows: Ints, groups: Names, mean: NDArray[np.float64], variance: NDArray[np.float64], shrinkage: float
) -> Floats:
    result = values.copy()
    order = rows[np.argsort(groups[rows], kind="stable")]
    _, starts = np.unique(groups[order], return_index=True)
    for index in np.split(order, starts[1:]) if len(order) else []:
        known = len(index) / (len(index) + shrinkage) if groups[index[0]] else 0.0
        own_mean, own_variance = _moments(values, index) if known else (mean, variance)
        centre = known * own_mean + (1 - known) * mean
        deviation = np.sqrt(known * own_variance + (1 - known) * variance)
        deviation[deviation < 1e-6 * (np.abs(centre) + 1e-6)] = np.inf  # constant within the speaker: it says nothing
        for part in _parts(index):
            result[part] = (values[part] - centre) / deviation
    return result


def _moments(values: Floats, rows: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, variance = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for part in _parts(rows):
        mean += values[part].sum(axis=0, dtype=np.float64) / len(rows)
    for part in _parts(rows):
        variance += np.square(values[part] - mean).sum(axis=0) / len(rows)
    return mean, variance


def _parts(rows: Ints) -> Iterator[Ints]:
    return (rows[start : start + ROWS] for start in range(0, len(rows), ROWS))
