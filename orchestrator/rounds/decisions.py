"""What became of every pool clip in a round, as flat columns for the ledger: accepted, or why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.crossfit import combined
from orchestrator.rounds.selection import CLOSED, winners
from orchestrator.vocabulary import Names, Predictions, PseudoLabels


class Reason(StrEnum):
    """Why a clip was taken or left."""

    ACCEPTED = "accepted"
    CLOSED_CLASS = "class closed"  # its class took nobody in this round
    BELOW = "below threshold"
    LEFT = "left by the policy"  # reached the threshold, yet voices disagreed, or too few folds' own teachers were as sure
    UNANSWERED = "no answer"  # an external teacher labelled this round, and did not say anything usable about the clip


@dataclass(frozen=True, slots=True)
class Decisions:
    """One row a pool clip, all `(N,)`, in clip order.

    - `teacher`: who gave the labels.
    - `labels`: the class its students learn; of a clip that was left, the one it would have had. int64.
    - `confidence`: float32, calibrated, as the policy saw it: after the prior was aligned, where it was.
    - `thresholds`: float32, what that class had to reach (median over folds).
    - `accepted_by`: int16, how many folds' students learn the clip. `reasons`: words of `Reason`.
    """

    teacher: str
    clip_ids: Names
    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    accepted_by: NDArray[np.int16]
    reasons: Names


def decisions(ensemble: Predictions, labels: PseudoLabels) -> Decisions:
    """`ensemble` is the model that taught the round, on the whole pool; `labels` what the round accepted."""
    pool = ensemble.rows(np.argsort(ensemble.clip_ids, kind="stable"))
    if labels.shift is not None:
        pool = replace(pool, bias=pool.bias + labels.shift)
    said, confidence = winners(pool)
    single = combined(labels, 1)
    taught = np.searchsorted(pool.clip_ids, single.clip_ids)
    said[taught], confidence[taught] = single.labels, single.confidence
    accepted_by = np.bincount(np.searchsorted(pool.clip_ids, labels.clip_ids), minlength=len(pool)).astype(np.int16)
    asked = labels.thresholds[said]
    foreign = np.full(len(pool), labels.teacher != ensemble.teacher)
    cases = [accepted_by > 0, foreign, asked >= CLOSED, confidence < asked]
    words = [Reason.ACCEPTED, Reason.UNANSWERED, Reason.CLOSED_CLASS, Reason.BELOW]
    reasons = np.select(cases, words, Reason.LEFT).astype(np.str_)
    return Decisions(labels.teacher, pool.clip_ids, said, confidence, asked, accepted_by, reasons)
