"""Fits that may spread over Ray Train workers; 0 workers means here, in this process.

A fusion ensemble spreads by members: each worker fits whole groups of members, a group is fitted the same way wherever it lands,
so one worker and four give the same bytes. Groups are saved as they are finished and found again after a crash.

    groups of members  ──deal──►  worker 0: 0, W, ...   worker 1: 1, W + 1, ...   ──►  group-<g>/  ──merge──►  Ensemble
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from numpy.typing import NDArray
from ray.train import LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from orchestrator.errors import OrchestratorError, TrainingError
from orchestrator.settings import ClusterSettings
from orchestrator.training.columns import Basis, Columns
from orchestrator.training.ensemble import Ensemble, FusionRecipe, fit_members, member_groups

RESTARTS = 10  # after lost workers: a fit that always loses them ends, one on spot nodes goes on


@dataclass(frozen=True, slots=True)
class FusionTask:
    """One fit: rows to learn from and how.

    - `bases`: what the rows were read through. `unlabelled`: the pool, for recipes with a consistency term.
    - `targets` `(F, N, C)` rows sum to 1, `weights` `(F, N)`: what each fold's students learn, 0 for rows they must not see.
    """

    recipe: FusionRecipe
    bases: Mapping[str, Basis]
    labelled: Columns
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    seed: int
    unlabelled: Columns | None = None

    def fit(self, group: list[int] | None = None) -> Ensemble:
        """All members, or one group of them."""
        rows = (self.recipe, self.bases, self.labelled, self.targets, self.weights)
        return fit_members(*rows, seed=self.seed, members=group, unlabelled=self.unlabelled)


def fit_fusion(task: FusionTask, directory: Path, settings: ClusterSettings, *, name: str) -> Ensemble:
    """Fit an ensemble; `directory` holds finished groups. Raises TrainingError."""
    if settings.fit_workers == 0:
        return task.fit()
    groups = member_groups(task.recipe, len(task.targets))
    config = {"task": ray.put(task), "groups": groups, "directory": directory}
    train_on_workers(_fit_groups, config, settings, name=name, storage=directory / "train")
    return Ensemble.merge([Ensemble.load(directory / f"group-{index}") for index in range(len(groups))])


def train_on_workers(
    loop: Callable[[Mapping[str, Any]], None], config: dict[str, Any], settings: ClusterSettings, *, name: str, storage: Path
) -> None:
    """Run a training loop on the workers of a fit, or here when there are none.

    Workers that are lost are replaced and the loop starts again; it finds what it had finished. Raises TrainingError, and at once
    what the loop itself raises for the user.
    """
    if settings.fit_workers == 0:
        loop(config)
        return
    gpus = settings.gpus_per_fit_worker
    scaling = ScalingConfig(
        num_workers=settings.fit_workers, use_gpu=gpus > 0, resources_per_worker={"GPU": gpus} if gpus else {"CPU": 1}
    )
    run = RunConfig(name=name, storage_path=str(storage), logging_config=LoggingConfig(log_level="CRITICAL"))  # we tell ourselves
    for restarts in count():  # Ray Train's own count would try again what fails every time
        try:
            TorchTrainer(loop, train_loop_config=config, scaling_config=scaling, run_config=run).fit()
            return
        except ray.train.TrainingFailedError as error:
            failures = list(getattr(error, "worker_failures", {}).values())
            for failure in failures:
                if isinstance(failure, OrchestratorError):
                    raise failure from None
            lost = any(type(failure).__module__.startswith("ray.") for failure in failures)
            if restarts >= (RESTARTS if lost else 1):  # a survivor may be heard before the loss it suffers from
                raise TrainingError(f"{name} failed on its workers, {restarts + 1} times: {error}") from error


def _fit_groups(config: Mapping[str, Any]) -> None:
    context = ray.train.get_context()
    shared: FusionTask = ray.get(config["task"])
    task = replace(shared, targets=shared.targets.copy(), weights=shared.weights.copy())  # torch warns of arrays it cannot write
    for index in range(context.get_world_rank(), len(config["groups"]), context.get_world_size()):
        target = config["directory"] / f"group-{index}"
        if not target.exists():
            staged = target.with_name(f".{target.name}")
            task.fit(config["groups"][index]).save(staged)
            staged.rename(target)
