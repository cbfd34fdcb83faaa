"""Folds, frozen before round 0 and used by every round after it.

A clip's fold decides which ensemble members may be judged on it. Speakers are never split, so an out-of-fold score is a score
on unseen speakers; classes are spread as evenly as the groups allow.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from orchestrator.vocabulary import Ints, Names


def freeze_folds(labels: Ints, groups: Names, k: int, seed: int) -> NDArray[np.int64]:
    """Fold `(N,)` in [0, k) of each labelled clip, the same for the same arguments.

    `groups` are speakers; "" means unknown, and such a clip is its own group. When nobody's speaker is known the folds are
    stratified by class alone. With fewer groups than folds there are fewer folds, and a warning says so. Raises ValueError
    when not even two folds are possible.
    """
    if k < 2:
        raise ValueError(f"folds must be at least 2, got {k}")
    if len(labels) != len(groups):
        raise ValueError(f"{len(labels)} labels but {len(groups)} groups; give every labelled clip one group ('' when unknown)")
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} labelled clip(s) cannot be split into folds; label more clips")
    owners = _own_group_when_unknown(groups)  # (N,)
    distinct = len(np.unique(owners))
    if distinct < 2:
        raise ValueError(
            f"all labelled clips are of speaker {str(groups[0])!r}; folds need two speakers, or empty speakers to split freely"
        )
    if distinct < k:
        warnings.warn(f"{distinct} speakers cannot fill {k} folds: using {distinct}", stacklevel=2)
        k = distinct
    folds = np.full(len(labels), -1, np.int64)
    for fold, (_, held_out) in enumerate(_splits(labels, owners, k, seed)):
        folds[held_out] = fold
    filled = np.unique(folds)
    return np.searchsorted(filled, folds)  # a fold that came out empty leaves no gap


def _own_group_when_unknown(groups: Names) -> NDArray[np.int64]:
    """Group numbers `(N,)`; each unknown speaker gets a number of its own."""
    _, numbers = np.unique(groups, return_inverse=True)
    unknown = groups == ""
    numbers[unknown] = len(groups) + np.arange(unknown.sum())
    return np.asarray(numbers, dtype=np.int64)


def _splits(labels: Ints, owners: Ints, k: int, seed: int) -> list[tuple[Ints, Ints]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes rarer than k: the folds are as even as they can be
        if len(np.unique(owners)) == len(owners) and np.bincount(labels).max() >= k:
            return list(StratifiedKFold(k, shuffle=True, random_state=seed).split(labels, labels))
        return list(_group_splits(labels, owners, k, seed))


def _group_splits(labels: Ints, owners: Ints, k: int, seed: int) -> list[tuple[Ints, Ints]]:
    if np.bincount(labels).max() >= k:
        return list(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(labels, labels, owners))
    names = np.random.default_rng(seed).permutation(np.unique(owners))  # too few clips a class to stratify: deal the groups out
    fold_of = dict(zip(names.tolist(), (np.arange(len(names)) % k).tolist(), strict=True))
    folds = np.array([fold_of[owner] for owner in owners.tolist()])
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(k)]
