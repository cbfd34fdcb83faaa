"""Many short runs over stored features: Ray Tune schedules them, each walks its own rounds, one that fails names itself.

Nothing of a trial rests in Tune: its rounds are in its ledger, so a trial that was finished before is read, not run.

    trials ─► features into shared memory, once a corpus ─► Tune ─► run_rounds in the trial's process ─► its ledger ─► records
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ray import tune

from orchestrator.cluster.corpus import Corpus
from orchestrator.cluster.run import Run, policy_of, steps_recipe
from orchestrator.cluster.steps import FusionSteps, StepsRecipe
from orchestrator.reports.progress import Bar, progress
from orchestrator.rounds.self_training import RoundPlan, best_of, run_rounds
from orchestrator.seams import Json, SelectionPolicy
from orchestrator.settings import Experiment
from orchestrator.vocabulary import RoundRecord, Verdict

Setting = dict[str, Json]  # config key -> value


@dataclass(frozen=True, slots=True)
class Trial:
    """One short run and what came of it: `records` by round, or why it failed."""

    setting: Setting
    experiment: Experiment
    records: tuple[RoundRecord, ...] = ()
    failure: str = ""

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.setting.items())

    @property
    def best(self) -> RoundRecord:
        return best_of(self.records)


def run_trials(trials: Sequence[Trial], corpora: Sequence[Corpus], storage: Path) -> list[Trial]:
    """The trials with their records, in the order given; `corpora[i]` is what trial i learns from."""
    shared: dict[int, StepsRecipe] = {}
    walks: list[Walk] = []
    for trial, corpus in zip(trials, corpora, strict=True):
        here = replace(trial.experiment, cluster=replace(trial.experiment.cluster, fit_workers=0))
        steps = steps_recipe(here, corpus, shared.get(id(corpus.features)))
        shared[id(corpus.features)] = steps
        walks.append(Walk(trial.name, steps, here.rounds, policy_of(here, corpus), Run.of(here, corpus)))
    missing = [walk for walk in walks if not walk.finished]
    if len(missing) < len(walks):
        print(f"resuming: {len(walks) - len(missing)} of {len(walks)} trials found", flush=True)
    # Of plans that differ in their length alone the longest is walked; the others read its rounds.
    longest = {walk.run.name: walk for walk in sorted(missing, key=lambda walk: walk.plan.total)}
    failures = _run(list(longest.values()), storage) if longest else {}
    return [
        replace(trial, records=walk.records, failure="" if walk.finished else failures.get(walk.run.name, "ended early"))
        for trial, walk in zip(trials, walks, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Walk:
    """What a trial's process needs."""

    name: str
    steps: StepsRecipe
    plan: RoundPlan
    policy: SelectionPolicy
    run: Run

    @property
    def records(self) -> tuple[RoundRecord, ...]:
        """Finished rounds of this plan."""
        found = (self.run.ledger.find(index) for index in range(self.plan.total))
        return tuple(record for record in found if record is not None)

    @property
    def finished(self) -> bool:
        """Whether the plan has been walked to its end."""
        records = self.records
        rejected = sum(record.verdict is Verdict.REJECTED for record in records)
        return len(records) == self.plan.total or rejected >= self.plan.patience


def _run(walks: Sequence[Walk], storage: Path) -> dict[str, str]:
    """Walk them all; why some failed, by the name of their run, told as it is known."""
    failures = {}
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one has no silence: a table of where its files are
    with progress(len(walks), "trials") as bar:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_walk, walks=list(walks)), {"cpu": 1}),
            param_space={"trial": tune.grid_search(list(range(len(walks))))},
            tune_config=tune.TuneConfig(metric="waf", mode="max", reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(storage),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=1),
                callbacks=[_Count(bar)],
            ),
        )
        results = tuner.fit()
    for result in results:
        if result.error is not None:
            walk = walks[result.config["trial"]]
            failures[walk.run.name] = str(result.error).strip().splitlines()[-1][:300]
            print(f"trial {walk.name} failed: {failures[walk.run.name]}", flush=True)
    return failures


class _Count(tune.Callback):  # type: ignore[misc]
    """Moves the bar as trials end."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def on_trial_complete(self, *_: object, **__: object) -> None:
        self._bar.advance(1)

    def on_trial_error(self, *_: object, **__: object) -> None:
        self._bar.advance(1)


def _walk(config: dict[str, int], walks: Sequence[Walk]) -> None:
    walk = walks[config["trial"]]
    records = list(run_rounds(FusionSteps(walk.steps), walk.plan, walk.policy, walk.run.ledger, truth=walk.steps.truth))
    tune.report({"waf": best_of(records).val_f1})
