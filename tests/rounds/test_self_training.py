"""The rounds over arithmetic: a student is a set of logits that depends on what it was taught."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.guard import Guard
from orchestrator.rounds.selection import FixedThreshold, Growing, QuotaShare
from orchestrator.rounds.self_training import RoundPlan, best_of, run_rounds
from orchestrator.vocabulary import Predictions, PseudoLabels, RoundRecord, Verdict

N, POOL, C = 120, 300, 3
TRUTH = np.arange(N) % C
POOL_TRUTH = np.arange(POOL) % C


class Killed(Exception):
    """Stands for a process that dies."""


def predictions(truth: NDArray[np.int64], accuracy: float, teacher: str, prefix: str) -> Predictions:
    """Right in the given share of clips, the first ones; confidence falls slowly with the row."""
    named = np.where(np.arange(len(truth)) < accuracy * len(truth), truth, (truth + 1) % C)
    logits = np.eye(C)[named] * (3 - np.arange(len(truth)) / len(truth))[:, None]
    return Predictions(np.array([f"{prefix}{row:04d}" for row in range(len(truth))]), logits.astype(np.float32), teacher)


@dataclass
class Arithmetic:
    """Students whose skill per round is given; they die where they are told to."""

    skill: tuple[float, ...]
    die_at: str = ""
    fitted: dict[int, PseudoLabels | None] = field(default_factory=dict)
    stored: dict[int, tuple[RoundRecord, Scored, PseudoLabels | None]] = field(default_factory=dict)

    def _step(self, name: str) -> None:
        if name == self.die_at:
            raise Killed(name)

    def fit(self, index: int, labels: PseudoLabels | None) -> str:
        self._step(f"before fit {index}")
        self.fitted[index] = labels
        self._step(f"after fit {index}")
        return f"student{index}"

    def predict(self, student: str) -> Scored:
        skill = self.skill[int(student.removeprefix("student"))]
        self._step(f"predict {student}")
        return Scored(predictions(TRUTH, skill, student, "h"), (predictions(POOL_TRUTH, skill, student, "p"),) * 2)

    def find(self, index: int) -> RoundRecord | None:
        return self.stored[index][0] if index in self.stored else None

    def write(self, record: RoundRecord, scored: Scored, labels: PseudoLabels | None) -> RoundRecord:
        self._step(f"write {record.index}")
        self.stored[record.index] = (record, scored, labels)
        return record

    def scored(self, index: int) -> Scored:
        return self.stored[index][1]


PLAN = RoundPlan(rounds=4, guard=Guard(churn=1.0, risk=0.95))
POLICY = QuotaShare(Growing(0.4, 0.2, 1.0))


def walk(world: Arithmetic, plan: RoundPlan = PLAN) -> list[RoundRecord]:
    return list(run_rounds(world, plan, POLICY, world, truth=TRUTH, pool_truth=POOL_TRUTH))


def test_a_better_student_becomes_the_teacher_of_the_next_round() -> None:
    records = walk(Arithmetic((0.6, 0.7, 0.8, 0.9, 1.0)))
    assert [record.teacher for record in records] == [None, "student0", "student1", "student2", "student3"]
    assert {record.verdict for record in records} == {Verdict.PROMOTED}
    assert best_of(records).student == "student4"


def test_a_worse_student_is_rolled_back_and_two_of_them_end_the_run() -> None:
    records = walk(Arithmetic((0.6, 0.8, 0.5, 0.4, 1.0)))
    assert [record.verdict for record in records] == [Verdict.PROMOTED, Verdict.PROMOTED, Verdict.REJECTED, Verdict.REJECTED]
    assert records[3].teacher == "student1"
    assert best_of(records).student == "student1"
    assert "worse than its teacher" in records[2].reason
    assert records[2].teacher == "student1"


def test_a_student_not_proven_better_teaches_on_but_the_best_model_stays() -> None:
    records = walk(Arithmetic((0.7, 0.72, 0.71, 0.9, 0.89)))
    kept, promoted = Verdict.KEPT, Verdict.PROMOTED
    assert [record.verdict for record in records] == [promoted, kept, kept, promoted, kept]
    assert records[2].teacher == "student1"
    assert best_of(records).student == "student3"


@pytest.mark.parametrize(
    "moment", ["before fit 0", "after fit 0", "write 0", "after fit 2", "predict student2", "write 2", "before fit 4", "write 4"]
)
def test_a_run_killed_at_any_moment_and_walked_again_gives_the_same_labels_and_records(moment: str) -> None:
    skill = (0.6, 0.7, 0.5, 0.8, 0.9)
    undisturbed, killed = Arithmetic(skill), Arithmetic(skill, die_at=moment)
    expected = walk(undisturbed)
    with pytest.raises(Killed):
        walk(killed)
    killed.die_at = ""
    assert [replace(r, seconds=0) for r in walk(killed)] == [replace(r, seconds=0) for r in expected]
    for index, (_, _, labels) in undisturbed.stored.items():
        again = killed.stored[index][2]
        if labels is not None and again is not None:
            assert again.clip_ids.tobytes() == labels.clip_ids.tobytes()
            assert again.targets.tobytes() == labels.targets.tobytes()
            assert again.weights.tobytes() == labels.weights.tobytes()


def test_rounds_are_walked_one_at_a_time() -> None:
    world = Arithmetic((0.6, 0.7, 0.8, 0.9, 1.0))
    rounds = run_rounds(world, PLAN, POLICY, world, truth=TRUTH)
    next(rounds)
    assert list(world.fitted) == [0]


def test_a_round_whose_policy_accepts_nobody_is_rejected_without_a_fit() -> None:
    world = Arithmetic((0.4, 1.0, 1.0, 1.0, 1.0))
    records = list(run_rounds(world, PLAN, FixedThreshold(1.0), world, truth=TRUTH))
    assert [record.verdict for record in records] == [Verdict.PROMOTED, Verdict.REJECTED, Verdict.REJECTED]
    assert list(world.fitted) == [0]
    assert "accepted no clip" in records[1].reason


def test_precision_is_the_share_of_accepted_labels_that_are_true_where_truth_is_known() -> None:
    half_known = np.where(np.arange(POOL) < POOL // 2, POOL_TRUTH, -1)
    world = Arithmetic((0.25, 0.3))
    plan = replace(PLAN, rounds=1)
    everyone = QuotaShare(Growing(1.0, 0.0, 1.0))
    records = list(run_rounds(world, plan, everyone, world, truth=TRUTH, pool_truth=half_known))
    assert records[0].pool_precision is None
    assert records[1].pool_precision == pytest.approx(0.5)  # the first quarter is right, half of the first half


def test_the_ledger_keeps_calibrated_predictions() -> None:
    world = Arithmetic((0.6, 0.7))
    walk(world, replace(PLAN, rounds=1))
    assert world.scored(0).pool[1].scale[0] == world.scored(0).labelled.scale[0] != 1.0
