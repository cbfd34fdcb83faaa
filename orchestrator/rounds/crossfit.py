"""Cross-fitting: the student of fold f learns only from labels given by the student of fold f.

A teacher that has seen a clip's human label teaches it to the pool, and every student of that pool has then seen it too. With
labels from the whole ensemble, 4 labels a class and a policy that harms, the out-of-fold score of `ravdess_av` rose from 0.50
to 0.56 while the test score fell from 0.69 to 0.59: the judge was blind. With F separate chains the same policy falls from 0.50
to 0.41 out of fold and is caught, and good policies lose nothing.

    fold f:  human labels without f  ->  student f  ->  labels for the pool  ->  student f of the next round
                                             └── judged on the human labels of f, which nothing on this line has seen

Thresholds and temperature read the out-of-fold predictions of all folds: a dozen numbers, no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Predictions, PseudoLabels


@dataclass(frozen=True, slots=True)
class Scored:
    """What the F students of a round say, and all that guard and selection need.

    - `labelled`: out of fold, on the human-labelled clips, in the order of their human labels.
    - `pool`: the unlabelled clips, once for each fold's student, all in the same order.
    """

    labelled: Predictions
    pool: tuple[Predictions, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", tuple(self.pool))
        if not self.pool or any(len(fold) != len(self.pool[0]) for fold in self.pool):
            raise ValueError(f"every fold's student speaks of the same pool, got lengths {[len(fold) for fold in self.pool]}")

    @property
    def ensemble(self) -> Predictions:
        """The pool as the model a run hands out sees it: mean of the students. Computed anew at each call."""
        return ensemble(self.pool)


def ensemble(students: Sequence[Predictions]) -> Predictions:
    """Mean logits; each voice's most frequent vote (ties to the smaller class); deviation of the winner's probability."""
    first = students[0]
    if len(students) == 1:
        return first
    logits = np.asarray(np.mean([student.logits for student in students], axis=0, dtype=np.float32))
    best = logits.argmax(axis=1)[:, None]
    spread = np.std([np.take_along_axis(student.probabilities, best, 1)[:, 0] for student in students], axis=0).astype(np.float32)
    votes = (
        None if first.votes is None else _majority(np.stack([s.votes for s in students if s.votes is not None]), logits.shape[1])
    )
    return replace(first, logits=logits, votes=votes, uncertainty=spread)


def _majority(votes: NDArray[np.int8], classes: int) -> NDArray[np.int8]:
    """Most frequent class `(N, J)` of `(F, N, J)` votes; -1 where nobody speaks."""
    counts = np.stack([(votes == label).sum(axis=0) for label in range(classes)])  # (C, N, J)
    return np.where(counts.any(axis=0), counts.argmax(axis=0), -1).astype(np.int8)


def for_folds(chosen: Sequence[PseudoLabels]) -> PseudoLabels:
    """What each fold's student may learn from, as one table sorted by (clip, fold); thresholds and shift: the folds' median."""
    shifts = [labels.shift for labels in chosen if labels.shift is not None]
    folds = np.repeat(np.arange(len(chosen), dtype=np.int16), [len(labels) for labels in chosen])
    ids = np.concatenate([labels.clip_ids for labels in chosen])
    order = np.lexsort((folds, ids))
    return PseudoLabels(
        ids[order],
        np.concatenate([labels.targets for labels in chosen])[order],
        np.concatenate([labels.weights for labels in chosen])[order],
        np.concatenate([labels.confidence for labels in chosen])[order],
        np.median([labels.thresholds for labels in chosen], axis=0).astype(np.float32),
        chosen[0].teacher,
        chosen[0].round_index,
        folds[order],
        np.median(shifts, axis=0).astype(np.float32) if shifts else None,
    )


def of_fold(labels: PseudoLabels, fold: int) -> PseudoLabels:
    """The rows the student of one fold learns from."""
    if labels.folds is None:
        return labels
    rows = np.flatnonzero(labels.folds == fold)
    return replace(
        labels,
        clip_ids=labels.clip_ids[rows],
        targets=labels.targets[rows],
        weights=labels.weights[rows],
        confidence=labels.confidence[rows],
        folds=labels.folds[rows],
    )


def combined(labels: PseudoLabels, folds: int) -> PseudoLabels:
    """One row a clip, for readers: mean target and confidence over the students that learn it, weight over all `folds`."""
    if labels.folds is None:
        return labels
    ids, first, inverse, count = np.unique(labels.clip_ids, return_index=True, return_inverse=True, return_counts=True)
    if not len(ids):
        return replace(labels, folds=None)
    targets = np.add.reduceat(labels.targets, first, axis=0) / count[:, None]  # rows of a clip are neighbours
    confidence = np.add.reduceat(labels.confidence, first) / count
    weights = np.bincount(inverse, weights=labels.weights) / folds
    return PseudoLabels(
        ids,
        targets.astype(np.float32),
        weights.astype(np.float32),
        confidence.astype(np.float32),
        labels.thresholds,
        labels.teacher,
        labels.round_index,
    )
