"""Three rounds over MER2024's whole pool: `OMP_NUM_THREADS=2 python -m benchmarks.scale [--pool 115595] [--labelled 5030]`.

Simulated features, 1024 + 768 + 4096 numbers a clip in half precision, no Ray: what a round's steps read, fit, predict and select
is what is measured. Peak memory is the whole process, the features and their simulation among it.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.fusion import C, simulated
from benchmarks.rounds import Memory, experiment_of
from orchestrator.cluster.steps import FusionSteps, StepsRecipe
from orchestrator.rounds.folds import freeze_folds
from orchestrator.rounds.self_training import run_rounds
from orchestrator.vocabulary import Features

DIMS = {"audio": 1024, "video": 768, "text": 4096}


def told(what: str, since: float, cpu: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:40}{time.monotonic() - since:8.1f} s{time.process_time() - cpu:9.1f} CPU-s{peak:7.2f} GiB at most", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=115_595)
    parser.add_argument("--labelled", type=int, default=5_030)
    options = parser.parse_args()
    experiment = experiment_of(["rounds.rounds=3", "rounds.patience=4"])
    since, cpu = time.monotonic(), time.process_time()
    features, truth = simulated(options.labelled + options.pool, DIMS, dtype=np.float16)
    labelled, pool = (part(features, rows) for rows in (slice(options.labelled), slice(options.labelled, None)))
    told("features simulated", since, cpu)
    with TemporaryDirectory() as store:
        given = truth[: options.labelled]
        recipe = StepsRecipe(
            labelled=labelled,
            pool=pool,
            truth=given,
            folds=freeze_folds(given, np.full(len(given), ""), experiment.data.folds, experiment.seed),
            classes=C,
            fusion=experiment.fusion,
            mixing=experiment.mixing,
            seed=experiment.seed,
            upstream="simulated",
            store=Path(store),
            cluster=experiment.cluster,
        )
        since, cpu = time.monotonic(), time.process_time()
        steps = FusionSteps(recipe)
        told("features read into components", since, cpu)
        walk = run_rounds(
            steps, experiment.rounds, experiment.selection, Memory(), truth=given, pool_truth=truth[options.labelled :]
        )
        for record in walk:
            accepted, precision = sum(record.accepted_per_class), record.pool_precision or 0.0
            told(f"round {record.index}: {accepted} taken, {precision:.3f} right, WAF {record.val_f1:.3f}", since, cpu)


def part(features: Features, rows: slice) -> Features:
    """A view, no copy."""
    values = {stream: stored[rows] for stream, stored in features.values.items()}
    return Features(features.clip_ids[rows], values, features.present[rows])


if __name__ == "__main__":
    main()
