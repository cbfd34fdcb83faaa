"""One tuned model for each fold of the labelled clips, so that every labelled clip has a model that never saw its label.

    TuningTask ─► tune_folds ─► fold_0.safetensors, ... ─► seal ─► folds.json, recipe.json        see `models.fold_models`

Folds may be dealt to workers, or every fold shared by all of them; each is found again when it is finished, and resumed when not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from orchestrator.errors import ConfigError, InputError
from orchestrator.models.emovclip import EmoVclip
from orchestrator.models.fold_models import finish, fold_file, judged_file, write_tensors
from orchestrator.models.prompts import Tokenize
from orchestrator.seams import Json
from orchestrator.training.prompts import Ints, PromptRecipe, look, predict, tune
from orchestrator.training.trunk import CachedTokens, Frames, LiveTokens, Tokens, cache_trunk
from orchestrator.training.tuning_run import EpochReport
from orchestrator.training.workers import ALONE, Workers


@dataclass(frozen=True, slots=True)
class TuningTask:
    """Labelled clips to tune fold models on.

    - `frames`: u8 `(T, H, W, 3)` of each clip, in memory or memory-mapped. `digests`, `labels`, `folds`: one for each, `(N,)`.
    - `names`: of the classes. `clip`: identity of the frozen CLIP, for the record that goes with the weights.
    """

    recipe: PromptRecipe
    names: tuple[str, ...]
    frames: Sequence[Frames]
    digests: Sequence[str]
    labels: Ints
    folds: Ints
    clip: Mapping[str, Json]
    seed: int

    @property
    def count(self) -> int:
        """How many folds there are."""
        return int(self.folds.max()) + 1


def tune_folds(
    task: TuningTask,
    load: Callable[[], tuple[nn.Module, Tokenize]],
    directory: Path,
    *,
    only: Sequence[int] | None = None,
    workers: Workers = ALONE,
    on_epoch: Callable[[int, EpochReport], None] | None = None,
) -> Path:
    """Tune the fold models that are missing in `directory`, all or `only` some; what a killed run has done is found there.

    `load` gives the frozen CLIP, on the device it shall run on, and its tokenizer. `workers` share every fold; to deal folds to
    workers instead, give each its `only` and leave `workers` alone. Call `seal` when all folds are there.
    """
    if task.recipe.patience and task.count < 3:
        raise ConfigError(f"prompts.patience stops by a second fold; with data.folds={task.count} nothing is left to learn from")
    clip, tokenize = load()
    directory.mkdir(parents=True, exist_ok=True)
    for fold in range(task.count) if only is None else only:
        if fold_file(directory, fold).exists():
            continue
        try:
            model = EmoVclip(clip, tokenize, task.recipe.scheme, task.names, seed=task.seed)  # folds start alike
        except ValueError as error:
            raise ConfigError(f"prompts.scheme does not suit this CLIP: {error}") from error
        model.checkpointing = task.recipe.checkpointing
        held_out, train = np.flatnonzero(task.folds == fold), np.flatnonzero(task.folds != fold)
        progress = directory / f"fold_{fold}.progress"
        tokens = _tokens(task, model, directory, workers)
        tune(
            task.recipe,
            model,
            tokens,
            task.labels,
            train,
            seed=task.seed,
            stop_by=np.flatnonzero(task.folds == (fold + 1) % task.count) if task.recipe.patience else None,
            judge=held_out,
            workers=workers,
            on_epoch=None if on_epoch is None else partial(on_epoch, fold),
            progress=progress,
        )
        if workers.rank == 0:
            write_tensors(judged_file(directory, fold), judged(model, tokens, task.labels, held_out))
            write_tensors(fold_file(directory, fold), model.tensors())
            progress.unlink(missing_ok=True)
        workers.wait()
    return directory


def judged(model: EmoVclip, tokens: Tokens, labels: Ints, clips: Ints) -> dict[str, Tensor]:
    """What a model says of clips it never saw, and what the frozen CLIP says; see `fold_models.read_judged`."""
    looks = look(model, tokens, clips)
    own = torch.tensor(labels[clips])
    by_label = [seen.frame_logits[:, label] for seen, label in zip(looks, own.tolist(), strict=True)]
    return {
        "labels": own,
        "tuned": torch.stack([seen.logits for seen in looks]),
        "zero_shot": predict(model, tokens, clips, model.zero_shot),
        "frames": torch.tensor([len(seen.attention) for seen in looks]),
        "frame_logits": pad_sequence([seen.frame_logits for seen in looks], batch_first=True),
        "attention": pad_sequence([seen.attention for seen in looks], batch_first=True),
        "spread": torch.stack([logits.std(correction=0) for logits in by_label]),
    }


def seal(task: TuningTask, directory: Path) -> None:
    """Write what the fold models mean, when all of them are there; the trunk's cache has served and goes."""
    folds = {digest: int(fold) for digest, fold in zip(task.digests, task.folds, strict=True)}
    finish(directory, scheme=task.recipe.scheme, names=task.names, clip=task.clip, folds=folds, training=task.recipe.identity())
    shutil.rmtree(directory / "trunk", ignore_errors=True)


def _tokens(task: TuningTask, model: EmoVclip, directory: Path, workers: Workers) -> Tokens:
    recipe = task.recipe
    if not recipe.looks or not model.first_layer:
        return LiveTokens(model, task.frames, recipe.augmentation, seed=task.seed)
    if workers.rank == 0:
        _check_room(model, task, directory)
    stored = cache_trunk(
        model,
        task.frames,
        task.digests,
        directory / "trunk",
        augmentation=recipe.augmentation,
        looks=recipe.looks,
        seed=task.seed,
        share=(workers.rank, workers.world),
    )
    workers.wait()
    return CachedTokens(stored, model.logit_scale.device)


def _check_room(model: EmoVclip, task: TuningTask, directory: Path) -> None:
    """Raises InputError when the trunk's tokens would not fit on the disk."""
    patches, width = model.tower.positional_embedding.shape
    tokens = patches if model.first_layer < len(model.tower.transformer.resblocks) else 1
    needed = 2 * tokens * width * sum(len(frames) for frames in task.frames) * task.recipe.looks
    there = sum(path.stat().st_size for path in (directory / "trunk").rglob("*.npy"))
    free = shutil.disk_usage(directory).free
    if needed - there > 0.9 * free:
        raise InputError(
            f"the cached trunk needs {needed / 1e9:.1f} GB in {directory}, {free / 1e9:.1f} GB are free: lower prompts.looks="
            f"{task.recipe.looks}, or set it to 0 to compute the trunk anew in every epoch"
        )
