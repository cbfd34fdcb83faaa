"""The rounds: a teacher labels the pool, a student learns from it, human labels decide who is handed out.

    round 0:  fit(human labels) ─ predict ─ calibrate ─ record
    round r:  select(last student not rejected) ─ fit(human + pseudo) ─ predict ─ calibrate ─ guard ─ record

A round's student is F of them, one a fold, each taught by its own fold's teacher alone: `crossfit` says why.

`run_rounds` is a generator over plain callables: the cluster passes Ray-backed ones, a test arithmetic. It keeps nothing the
ledger does not hold. Killed between any two steps and walked again it comes to the same records: selection, calibration and
judgement are pure, and `RoundSteps.fit` finds finished fits again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """How many rounds, how they are judged and what ends them.

    - `rounds`: at most this many after round 0.
    - `patience`: rejections that end the run.
    """

    rounds: int = 4
    patience: int = 2
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
    """Round 0 learns from human labels alone; each later round also learns from the last student that was not rejected.

    `truth` `(N,)` are the human labels in the order of `Scored.labelled`; `pool_truth` `(N_pool,)`, -1 where unknown, serves the
    report and nothing else. The last promoted record is the run's best model; `best_of` finds it.
    """
    done: list[RoundRecord] = []
    for index in range(plan.total):
        record = ledger.find(index)
        if record is None:
            started = monotonic()
            outcome = _taught(done, steps, plan, policy, ledger, truth) if done else _supervised(steps, plan, truth)
            record = _record(index, outcome, truth, pool_truth, monotonic() - started, plan.seed)
            record = ledger.write(record, outcome.scored, outcome.labels)
        yield record
        done.append(record)
        if sum(record.verdict is Verdict.REJECTED for record in done) >= plan.patience:
            return


def best_of(records: Sequence[RoundRecord]) -> RoundRecord:
    """The model a run ends with: the last one promoted. Raises ValueError without any round."""
    promoted = [record for record in records if record.verdict is Verdict.PROMOTED]
    if not promoted:
        raise ValueError("no round has finished yet: round 0 is always promoted")
    return promoted[-1]


def label_pool(teacher: Scored, policy: SelectionPolicy, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
    """What each fold's student may learn from, as its own teacher and the policy see it."""
    chosen = [policy.select(fold, judged=teacher.labelled, truth=truth, round_index=round_index) for fold in teacher.pool]
    return for_folds(chosen)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one round, before it is scored and written."""

    teacher: str | None
    student: str
    scored: Scored
    labels: PseudoLabels | None
    judgement: Judgement


def _supervised(steps: RoundSteps, plan: RoundPlan, truth: NDArray[np.int64]) -> _Outcome:
    student = steps.fit(0, None)
    scored = _calibrate(steps.predict(student), truth, plan.calibration)
    return _Outcome(None, student, scored, None, Judgement(Verdict.PROMOTED, "the supervised model, from human labels alone"))


def _taught(
    done: Sequence[RoundRecord],
    steps: RoundSteps,
    plan: RoundPlan,
    policy: SelectionPolicy,
    ledger: Ledger,
    truth: NDArray[np.int64],
) -> _Outcome:
    index = len(done)
    teaching = [record for record in done if record.verdict is not Verdict.REJECTED][-1]
    teacher = ledger.scored(teaching.index)
    labels = label_pool(teacher, policy, truth, index)
    if not len(labels):
        nothing = Judgement(Verdict.REJECTED, "the policy accepted no clip: lower its thresholds or train the teacher longer")
        return _Outcome(teaching.student, teaching.student, teacher, labels, nothing)
    student = steps.fit(index, labels)
    scored = _calibrate(steps.predict(student), truth, plan.calibration)
    best, origin = ledger.scored(best_of(done).index), ledger.scored(0)
    judgement = plan.guard.judge(scored, teacher=teacher, best=best, origin=origin, truth=truth, seed=plan.seed + index)
    return _Outcome(teaching.student, student, scored, labels, judgement)


def _record(
    index: int, outcome: _Outcome, truth: NDArray[np.int64], pool_truth: NDArray[np.int64] | None, seconds: float, seed: int
) -> RoundRecord:
    probabilities = outcome.scored.labelled.probabilities  # (N, C)
    score = scores(truth, probabilities.argmax(axis=1))
    labels = outcome.labels
    accepted = None if labels is None else combined(labels, len(outcome.scored.pool))  # one row a clip
    counts = np.bincount(accepted.labels if accepted else np.zeros(0, int), minlength=probabilities.shape[1])
    return RoundRecord(
        index=index,
        teacher=outcome.teacher,
        student=outcome.student,
        accepted_per_class=tuple(counts.tolist()),
        threshold_per_class=() if labels is None else tuple(labels.thresholds.tolist()),
        val_f1=score["waf"],
        val_uar=score["uar"],
        val_accuracy=score["accuracy"],
        val_ece=ece(probabilities, truth),
        verdict=outcome.judgement.verdict,
        reason=outcome.judgement.reason,
        seconds=seconds,
        seed=seed,
        pool_precision=_precision(accepted, outcome.scored.pool[0].clip_ids, pool_truth),
    )


def _calibrate(scored: Scored, truth: NDArray[np.int64], calibration: Calibration) -> Scored:
    scale, bias = calibration.fit(scored.labelled.logits, truth)
    return Scored(calibrated(scored.labelled, scale, bias), tuple(calibrated(fold, scale, bias) for fold in scored.pool))


def _precision(labels: PseudoLabels | None, clip_ids: Names, pool_truth: NDArray[np.int64] | None) -> float | None:
    """Share of accepted labels that are true, over the clips whose truth is known."""
    if labels is None or pool_truth is None:
        return None
    order = np.argsort(clip_ids, kind="stable")
    rows = order[np.searchsorted(clip_ids, labels.clip_ids, sorter=order)]
    known = pool_truth[rows] >= 0
    return float((labels.labels == pool_truth[rows])[known].mean()) if known.any() else None
