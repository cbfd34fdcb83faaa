"""The controller actor: it owns the rounds, and nothing of the cluster.

    jobs/self_train (driver) ──next_round(after)──► RoundController (0 CPU) ◄──status(), stop_after_round()── anyone
                                                       │  walks `run_rounds`; waits for whoever fits:
                                                       ├─ fit      in its own process, or Ray Train x `fit_workers`
                                                       └─ predict  in its own process, over features in shared memory

The actor asks for no CPU, so a full cluster of workers can always be scheduled under it. All it knows rests in the ledger: when
it dies Ray restarts it, the generator is walked again from the start, finished rounds are read, not redone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.ledger import RoundLedger
from orchestrator.cluster.steps import FusionSteps, StepsRecipe
from orchestrator.rounds.self_training import RoundPlan, run_rounds
from orchestrator.seams import SelectionPolicy
from orchestrator.stores.runs import STOP, walking
from orchestrator.vocabulary import RoundRecord


class RoundController:
    """Walks the rounds in one thread and answers in another."""

    def __init__(
        self,
        steps: StepsRecipe,
        plan: RoundPlan,
        policy: SelectionPolicy,
        ledger: RoundLedger,
        pool_truth: NDArray[np.int64] | None,
    ) -> None:
        self._steps = FusionSteps(steps)
        self._walk = run_rounds(self._steps, plan, policy, ledger, truth=self._steps.truth, pool_truth=pool_truth)
        self._done: list[RoundRecord] = []
        self._stop = ledger.run / STOP

    def next_round(self, after: int) -> RoundRecord | None:
        """The record of round `after + 1`, None when the run has ended. Safe to ask again after a restart."""
        while len(self._done) <= after + 1:
            if self._stop.exists() and len(self._done) > 0:
                return None
            record = next(self._walk, None)
            if record is None:
                return None
            self._done.append(record)
        return self._done[after + 1]

    def status(self) -> str:
        """What is going on, for a person."""
        last = self._done[-1] if self._done else None
        done = f"round {last.index} {last.verdict}: WAF {last.val_f1:.3f}" if last else "no round finished"
        return f"{done}; {self._steps.activity}" + ("; stopping after this round" if self._stop.exists() else "")

    def stop_after_round(self) -> None:
        """Finish the round that runs, then end: the best model so far is the result."""
        self._stop.touch()


def walk_rounds(
    steps: StepsRecipe, plan: RoundPlan, policy: SelectionPolicy, ledger: RoundLedger, pool_truth: NDArray[np.int64] | None
) -> Iterator[RoundRecord]:
    """Run the rounds in a controller actor and yield each record as it is finished.

    The actor answers to the name of the run, `rounds/<run>`: `ray.get_actor(name, namespace="emotion").status.remote()`. Whoever
    cannot join its cluster reads and writes in the run's directory instead: `jobs.status`.
    """
    actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=-1, max_concurrency=2)(RoundController)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)  # not on a node that may vanish
    named = actor.options(name=f"rounds/{ledger.run.name}", namespace="emotion", scheduling_strategy=here)
    controller = named.remote(steps, plan, policy, ledger, pool_truth)
    with walking(ledger.run) as tell:
        coming = controller.next_round.remote(-1)
        while (record := ray.get(coming)) is not None:
            coming = controller.next_round.remote(record.index)  # the next round is fitted while this one is told
            tell(record.index + 1)
            yield record
    ray.kill(controller)


def found_rounds(ledger: RoundLedger, plan: RoundPlan) -> Sequence[int]:
    """Rounds of this plan that rest in the ledger."""
    return [index for index in range(plan.total) if ledger.find(index) is not None]
