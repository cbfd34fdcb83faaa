"""Take the speaker out of the features: each stream standardised within each speaker.

A face at rest and a voice's timbre differ more between people than an emotion moves them, so a model of a few speakers fails on
the next one. A speaker's own unlabelled clips say what is usual for them; no label is read. On `ravdess_av`, unseen actors, it is
worth 12 points WAF and more. It asks for several clips of a speaker that are not all of one emotion, at prediction too.

A speaker of n clips is drawn towards all others by `shrinkage` clips: with n = 1 little is known of what is usual. Clips of
unknown speaker ("") are standardised together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Features, Floats, Names


def within_speakers(features: Features, groups: Names, *, shrinkage: float = 4.0) -> Features:
    """Features whose streams are standardised within each group, in the dtype they came in; absent rows stay as they are.

    `groups` `(N,)`. All clips that are to be compared go in together, labelled, unlabelled and test. Raises ValueError when
    lengths differ or `shrinkage` is negative.
    """
    if len(groups) != len(features) or shrinkage < 0:
        raise ValueError(f"{len(features)} clips need as many groups and a shrinkage >= 0, got {len(groups)} and {shrinkage}")
    values = {
        stream: _standardised(features.values[stream], features.present[:, column], groups, shrinkage)
        for column, stream in enumerate(features.streams)
    }
    return replace(features, values=values)


def _standardised(values: Floats, present: NDArray[np.bool_], groups: Names, shrinkage: float) -> Floats:
    result = values.copy()
    rows = np.flatnonzero(present)
    if not len(rows):
        return result
    order = rows[np.argsort(groups[rows], kind="stable")]
    _, starts = np.unique(groups[order], return_index=True)
    mean, variance = _moments(values, np.split(order, starts[1:]))  # (G, D)
    count = np.diff(np.append(starts, len(order))).astype(np.float64)[:, None]
    usual = (count * mean).sum(axis=0) / len(order)
    spread = (count * (variance + (mean - usual) ** 2)).sum(axis=0) / len(order)
    known = count / (count + shrinkage)
    centre = known * mean + (1 - known) * usual
    deviation = np.sqrt(known * variance + (1 - known) * spread)
    deviation[deviation < 1e-6 * (np.abs(centre) + 1e-6)] = np.inf  # constant within the speaker: it says nothing
    for group, index in enumerate(np.split(order, starts[1:])):
        if groups[index[0]] == "":
            result[index] = (values[index] - usual) / np.where(spread > 0, np.sqrt(spread), np.inf)
        else:
            result[index] = (values[index] - centre[group]) / deviation[group]
    return result


def _moments(values: Floats, groups: list[NDArray[np.int64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = np.stack([values[index].mean(axis=0, dtype=np.float64) for index in groups])
    variance = np.stack([values[index].var(axis=0, dtype=np.float64) for index in groups])
    return mean, variance
