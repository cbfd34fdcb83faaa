"""What became of every pool clip in a round, as flat columns for the ledger: accepted, or why not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.selection import CLOSED, winners
from orchestrator.vocabulary import Names, Predictions, PseudoLabels


class Reason(StrEnum):
    """Why a clip was taken or left."""

    ACCEPTED = "accepted"
    CLOSED_CLASS = "class closed"  # its class took nobody in this round
    BELOW = "below threshold"
    LEFT = "left by the policy"  # reached the threshold, yet voices disagreed or the class had its share


@dataclass(frozen=True, slots=True)
class Decisions:
    """One row a pool clip, all `(N,)`, in clip order.

    - `labels`, `confidence`: the ensemble's winning class and its calibrated probability, int64 and float32.
    - `thresholds`: float32, what that class had to reach (median over folds).
    - `accepted_by`: int16, how many folds' students learn the clip. `reasons`: words of `Reason`.
    """

    clip_ids: Names
    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    accepted_by: NDArray[np.int16]
    reasons: Names


def decisions(teacher: Predictions, labels: PseudoLabels) -> Decisions:
    """`teacher` is the ensemble that taught the round, on the whole pool; `labels` what the round accepted."""
    order = np.argsort(teacher.clip_ids, kind="stable")
    pool = teacher.rows(order)
    top = winners(pool)
    asked = labels.thresholds[top.labels]
    rows = np.searchsorted(pool.clip_ids, labels.clip_ids)
    accepted_by = np.bincount(rows, minlength=len(pool)).astype(np.int16)
    cases = [accepted_by > 0, asked >= CLOSED, top.confidence < asked]
    reasons = np.select(cases, [Reason.ACCEPTED, Reason.CLOSED_CLASS, Reason.BELOW], Reason.LEFT).astype(np.str_)
    return Decisions(pool.clip_ids, top.labels, top.confidence, asked, accepted_by, reasons)
