"""Search on stored features: Ray Tune runs trials, each a short walk of the rounds, judged on out-of-fold human labels.

The trials are drawn before Tune starts, from a seed: the same command asks for the same trials, and a trial whose rounds rest in
its ledger is read, not run. Tune schedules them, retries a lost one and shows how far they are; nothing of a trial rests in Tune.

    settings of n trials ─► Tune ─► trial: run_rounds in its process ─► ledger of that trial ─► table, best first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ray import tune

from orchestrator.cluster.corpus import Corpus
from orchestrator.cluster.run import Run, steps_recipe
from orchestrator.cluster.steps import FusionSteps, StepsRecipe
from orchestrator.rounds.self_training import best_of, run_rounds
from orchestrator.seams import Json
from orchestrator.settings import Experiment
from orchestrator.vocabulary import RoundRecord

Setting = dict[str, Json]  # config key -> value


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the search and what came of it, `records` by round."""

    setting: Setting
    experiment: Experiment
    records: tuple[RoundRecord, ...] = ()

    @property
    def best(self) -> RoundRecord:
        return best_of(list(self.records))


def draw(space: dict[str, Sequence[float | str]], trials: int, seed: int) -> list[Setting]:
    """Random settings: a pair of numbers is a range, anything else a list of choices (Bergstra & Bengio 2012)."""
    rng = np.random.default_rng(seed)
    return [{key: _draw(rng, values) for key, values in space.items()} for _ in range(trials)]


def _draw(rng: np.random.Generator, values: Sequence[float | str]) -> float | str:
    if len(values) == 2 and all(isinstance(value, int | float) for value in values):
        low, high = values
        return round(float(rng.uniform(float(low), float(high))), 4)
    return values[int(rng.integers(len(values)))]


def search(trials: Sequence[Trial], corpus: Corpus) -> list[Trial]:
    """Run the trials; returns them with their records, best out-of-fold WAF first.

    The best of many is flattered by the choice: its score is a ranking, not an estimate. Judge the winner on the test split.
    """
    first = trials[0].experiment
    shared = steps_recipe(replace(first, cluster=replace(first.cluster, fit_workers=0)), corpus)
    plans = [
        (
            replace(shared, fusion=trial.experiment.fusion, mixing=trial.experiment.mixing),
            trial.experiment,
            Run.of(trial.experiment, corpus.identity),
        )
        for trial in trials
    ]
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_walk, plans=plans), {"cpu": 1}),
        param_space={"trial": tune.grid_search(list(range(len(trials))))},
        tune_config=tune.TuneConfig(metric="waf", mode="max"),
        run_config=tune.RunConfig(storage_path=str(trials[0].experiment.store / "tune"), verbose=0),
    )
    results = tuner.fit()
    if results.num_errors:
        raise results.errors[0]
    done = [replace(trial, records=_records(run, trial.experiment)) for trial, (_, _, run) in zip(trials, plans, strict=True)]
    return sorted(done, key=lambda trial: -trial.best.val_f1)


def _walk(config: dict[str, int], plans: Sequence[tuple[StepsRecipe, Experiment, Run]]) -> None:
    recipe, experiment, run = plans[config["trial"]]
    walk = run_rounds(FusionSteps(recipe), experiment.rounds, experiment.selection, run.ledger, truth=recipe.truth)
    tune.report({"waf": best_of(list(walk)).val_f1})


def _records(run: Run, experiment: Experiment) -> tuple[RoundRecord, ...]:
    found = (run.ledger.find(index) for index in range(experiment.rounds.total))
    return tuple(record for record in found if record is not None)
