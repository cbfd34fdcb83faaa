"""Search on stored features: random settings of a space, each a short walk of the rounds, judged on out-of-fold human labels.

The trials are drawn before anything starts, from a seed: the same command asks for the same trials and runs none again.

    space ─► settings of n trials ─► `trials.run_trials` ─► table, best first ─► MLflow
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.cluster.corpus import Corpus
from orchestrator.cluster.telling import tell_trials, tracker_of
from orchestrator.cluster.trials import Setting, Trial, run_trials
from orchestrator.errors import TrainingError
from orchestrator.reports.console import show_rows
from orchestrator.settings import Experiment


def draw(space: Mapping[str, Sequence[float | str]], trials: int, seed: int) -> list[Setting]:
    """Random settings: a pair of numbers is a range, anything else a list of choices (Bergstra & Bengio 2012)."""
    rng = np.random.default_rng(seed)
    return [{key: _draw(rng, values) for key, values in space.items()} for _ in range(trials)]


def _draw(rng: np.random.Generator, values: Sequence[float | str]) -> float | str:
    if len(values) == 2 and all(
        isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)) for value in values
    ):
        low, high = values
        return round(float(rng.uniform(float(low), float(high))), 4)
    return values[int(rng.integers(len(values)))]


def search(experiment: Experiment, trials: Sequence[Trial], corpus: Corpus) -> list[Trial]:
    """Run the trials; returns them best out-of-fold WAF first, those that failed last, and tells console and MLflow.

    The best of many is flattered by the choice: its score is a ranking, not an estimate. Judge the winner on the test split.
    Raises TrainingError when none came to an end.
    """
    done = run_trials(trials, [corpus] * len(trials), experiment.store / "tune")
    whole = sorted((trial for trial in done if not trial.failure), key=lambda trial: -trial.best.val_f1)
    failed = [trial for trial in done if trial.failure]
    if not whole:
        raise TrainingError(f"all {len(failed)} trials failed; the first, {failed[0].name}: {failed[0].failure}")
    keys = list(whole[0].setting)
    rows = [
        (f"{t.best.val_f1:.3f}", f"{t.best.val_uar:.3f}", str(len(t.records) - 1), *(str(t.setting[key]) for key in keys))
        for t in whole
    ]
    rows += [("failed", "", "", *(str(t.setting[key]) for key in keys)) for t in failed]
    show_rows("trials by out-of-fold WAF", ("WAF", "UAR", "rounds", *keys), rows)
    print("best: " + " ".join(f"{key}={value}" for key, value in whole[0].setting.items()))
    tracker = tracker_of(experiment)
    key = f"search/{experiment.name}/{'/'.join(keys)}/{len(trials)}/{experiment.seed}"
    tell_trials(tracker, key, f"search {experiment.name}", [*whole, *failed])
    tracker.params(key, {f"best.{name}": value for name, value in whole[0].setting.items()})
    tracker.metrics(key, {"val_waf": whole[0].best.val_f1})
    tracker.close(key)
    return [*whole, *failed]
