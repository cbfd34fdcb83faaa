"""The rounds: a teacher labels the pool, a student learns from it, human labels decide who teaches next.

    round 0:  fit(human labels) ─ predict ─ calibrate ─ record
    round r:  select(best teacher so far) ─ fit(human + pseudo) ─ predict ─ calibrate ─ guard ─ record

A round's student is F of them, one a fold, each taught by its own fold's teacher alone: `crossfit` says why.

`run_rounds` is a generator over plain callables: the cluster passes Ray-backed ones, a test arithmetic. It keeps nothing the
ledger does not hold. Killed between any two steps and walked again it comes to the same records: selection, calibration and
judgement are pure, and `RoundSteps.fit` finds finished fits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.metrics import ece, scores
from orchestrator.rounds.calibration import Calibration, Temperature, calibrated
from orchestrator.rounds.crossfit import Scored, combined, for_folds
from orchestrator.rounds.guard import Guard, Judgement
from orchestrator.seams import SelectionPolicy
from orchestrator.vocabulary import Names, PseudoLabels, RoundRecord, Verdict


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """How many rounds, and what ends them.

    - `rounds`: at most this many after round 0.
    - `patience`: rejections that end the run.
    - `min_gain`: out-of-fold WAF a student must gain on its teacher to replace it; negative tolerates noise.
    """

    rounds: int = 3
    patience: int = 2
    min_gain: float = 0.0
    guard: Guard = Guard()  # noqa: RUF009  frozen
    calibration: Calibration = Temperature()  # noqa: RUF009  frozen
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.patience < 1:
            raise ValueError(f"rounds must be at least 0 and patience at least 1, got {self.rounds} and {self.patience}")

    @property
    def total(self) -> int:
        """Rounds including round 0."""
        return self.rounds + 1


class RoundSteps(Protocol):
    """What a round asks of the outside."""

    def fit(self, index: int, labels: PseudoLabels | None) -> str:
        """Fit the students of round `index`, one a fold, each from its own rows of `labels` (see `Mixing.mix`).

        Returns their common fingerprint. A fit that was finished before is found again.
        """
        ...

    def predict(self, student: str) -> Scored:
        """Uncalibrated logits: labelled clips out of fold, the pool once for each fold's student."""
        ...


class Ledger(Protocol):
    """Where finished rounds rest."""

    def find(self, index: int) -> RoundRecord | None: ...

    def write(self, record: RoundRecord, scored: Scored, labels: PseudoLabels | None) -> RoundRecord:
        """Keep a finished round, with calibrated predictions; returns what is kept."""
        ...

    def scored(self, index: int) -> Scored:
        """What `write` was given for a finished round."""
        ...


def run_rounds(
    steps: RoundSteps,
    plan: RoundPlan,
    policy: SelectionPolicy,
    ledger: Ledger,
    *,
    truth: NDArray[np.int64],
    pool_truth: NDArray[np.int64] | None = None,
) -> Iterator[RoundRecord]:
    """Round 0 learns from human labels alone; each later round also learns from the best teacher so far.

    `truth` `(N,)` are the human labels in the order of `Scored.labelled`; `pool_truth` `(N_pool,)`, -1 where unknown, serves the
    report and nothing else. The last promoted record is the run's best model; `best_of` finds it.
    """
    best: RoundRecord | None = None
    rejections = 0
    for index in range(plan.total):
        record = ledger.find(index)
        if record is None:
            record = _one_round(index, best, steps, plan, policy, ledger, truth, pool_truth)
        yield record
        best = record if record.verdict is Verdict.PROMOTED else best
        rejections += record.verdict is Verdict.REJECTED
        if rejections >= plan.patience:
            return


def best_of(records: list[RoundRecord]) -> RoundRecord:
    """The model a run ends with: the last one promoted. Raises ValueError without any round."""
    promoted = [record for record in records if record.verdict is Verdict.PROMOTED]
    if not promoted:
        raise ValueError("no round has finished yet: round 0 is always promoted")
    return promoted[-1]


def label_pool(teacher: Scored, policy: SelectionPolicy, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
    """What each fold's student may learn from, as its own teacher and the policy see it."""
    chosen = [policy.select(fold, judged=teacher.labelled, truth=truth, round_index=round_index) for fold in teacher.pool]
    return for_folds(chosen)


def _one_round(
    index: int,
    best: RoundRecord | None,
    steps: RoundSteps,
    plan: RoundPlan,
    policy: SelectionPolicy,
    ledger: Ledger,
    truth: NDArray[np.int64],
    pool_truth: NDArray[np.int64] | None,
) -> RoundRecord:
    started = monotonic()
    teacher = None if best is None else ledger.scored(best.index)
    labels = None if teacher is None else label_pool(teacher, policy, truth, index)
    if teacher is not None and labels is not None and not len(labels):
        assert best is not None
        student, scored = best.student, teacher
        judgement = Judgement(
            Verdict.REJECTED, "the policy accepted no clip of the pool: lower its thresholds or train the teacher longer"
        )
    else:
        student = steps.fit(index, labels)
        scored = _calibrate(steps.predict(student), truth, plan.calibration)
        judgement = _judge(scored, teacher, ledger, plan, truth, index)
    probabilities = scored.labelled.probabilities  # (N, C)
    classes = probabilities.shape[1]
    accepted = None if labels is None else combined(labels, len(scored.pool))  # one row a clip
    score = scores(truth, probabilities.argmax(axis=1))
    record = RoundRecord(
        index=index,
        teacher=None if best is None else best.student,
        student=student,
        accepted_per_class=(0,) * classes
        if accepted is None
        else tuple(np.bincount(accepted.labels, minlength=classes).tolist()),
        threshold_per_class=() if labels is None else tuple(labels.thresholds.tolist()),
        val_f1=score["waf"],
        val_uar=score["uar"],
        val_accuracy=score["accuracy"],
        val_ece=ece(probabilities, truth),
        verdict=judgement.verdict,
        reason=judgement.reason,
        seconds=monotonic() - started,
        seed=plan.seed,
        pool_precision=None
        if accepted is None or pool_truth is None
        else _precision(accepted, scored.pool[0].clip_ids, pool_truth),
    )
    return ledger.write(record, scored, labels)


def _calibrate(scored: Scored, truth: NDArray[np.int64], calibration: Calibration) -> Scored:
    scale, bias = calibration.fit(scored.labelled.logits, truth)
    return Scored(calibrated(scored.labelled, scale, bias), tuple(calibrated(fold, scale, bias) for fold in scored.pool))


def _judge(
    scored: Scored, teacher: Scored | None, ledger: Ledger, plan: RoundPlan, truth: NDArray[np.int64], index: int
) -> Judgement:
    if teacher is None:
        return Judgement(Verdict.PROMOTED, "the supervised model, from human labels alone")
    return plan.guard.judge(scored, teacher, ledger.scored(0), truth, min_gain=plan.min_gain, seed=plan.seed + index)


def _precision(labels: PseudoLabels | None, clip_ids: Names, pool_truth: NDArray[np.int64] | None) -> float | None:
    """Share of accepted labels that are true, over the clips whose truth is known."""
    if labels is None or pool_truth is None:
        return None
    order = np.argsort(clip_ids, kind="stable")
    rows = order[np.searchsorted(clip_ids, labels.clip_ids, sorter=order)]
    known = pool_truth[rows] >= 0
    return float((labels.labels == pool_truth[rows])[known].mean()) if known.any() else None
