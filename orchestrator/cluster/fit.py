"""Fits that may spread over Ray Train workers; 0 workers means here, in this process.

A fusion ensemble spreads by members: each worker fits whole groups of members, a group is fitted the same way wherever it lands,
so one worker and four give the same bytes. Groups are saved as they are finished and found again after a crash.

    groups of members  ──deal──►  worker 0: 0, W, ...   worker 1: 1, W + 1, ...   ──►  <directory>/group-<g>/  ──merge──►  Ensemble
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from numpy.typing import NDArray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from orchestrator.errors import TrainingError
from orchestrator.training.ensemble import Ensemble, FusionRecipe, fit_members, member_groups
from orchestrator.vocabulary import Features


@dataclass(frozen=True, slots=True)
class FusionTask:
    """One fit: rows to learn from and how.

    - `targets` `(F, N, C)` rows sum to 1, `weights` `(F, N)`: what each fold's students learn, 0 for rows they must not see.
    """

    recipe: FusionRecipe
    features: Features
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    seed: int

    def fit(self, group: list[int] | None = None) -> Ensemble:
        """All members, or one group of them."""
        return fit_members(self.recipe, self.features, self.targets, self.weights, seed=self.seed, members=group)


def fit_fusion(task: FusionTask, directory: Path, *, workers: int, gpus_per_worker: float, name: str) -> Ensemble:
    """Fit an ensemble. Raises TrainingError with the workers' reason when they cannot go on."""
    if workers == 0:
        return task.fit()
    groups = member_groups(task.recipe, len(task.targets))
    trainer = TorchTrainer(
        _fit_groups,
        train_loop_config={"task": ray.put(task), "groups": groups, "directory": str(directory)},
        scaling_config=ScalingConfig(
            num_workers=min(workers, len(groups)),
            use_gpu=gpus_per_worker > 0,
            resources_per_worker={"GPU": gpus_per_worker} if gpus_per_worker else {"CPU": 1},
        ),
        run_config=RunConfig(name=name, storage_path=str(directory / "train"), failure_config=FailureConfig(max_failures=3)),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"fitting {name} failed on its workers: {error}") from error
    return Ensemble.merge([Ensemble.load(directory / f"group-{index}") for index in range(len(groups))])


def _fit_groups(config: Mapping[str, Any]) -> None:
    context = ray.train.get_context()
    task: FusionTask = ray.get(config["task"])
    for index in range(context.get_world_rank(), len(config["groups"]), context.get_world_size()):
        target = Path(config["directory"]) / f"group-{index}"
        if not target.exists():
            staged = target.with_name(f".{target.name}-{context.get_world_rank()}")
            task.fit(config["groups"][index]).save(staged)
            staged.rename(target)
    ray.train.report({"rank": context.get_world_rank()})
