"""A small tuning run that a process of its own can do: `python -m tests.training.rehearsal RANK WORLD MEETING OUT [die]`.

Workers meet at a file; with `die` the process ends itself, as a kill would, in the middle of epoch 1.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from orchestrator.models.emovclip import EmoVclip
from orchestrator.models.fold_models import write_tensors
from orchestrator.models.prompts import PromptScheme
from orchestrator.training.augmentation import Augmentation
from orchestrator.training.prompts import PromptRecipe, tune
from orchestrator.training.trunk import LiveTokens
from orchestrator.training.workers import ALONE, Workers
from tests.tiny_clips import NAMES, load, pictures

SCHEME = PromptScheme(frames=2, first_layer=0, global_prompts=2, summary="full", context=3)
RECIPE = PromptRecipe(
    SCHEME, epochs=4, clips_per_batch=8, clips_per_micro_batch=2, augmentation=Augmentation()
)  # 5 steps an epoch
CLIPS = 40


def fresh_model(scheme: PromptScheme = SCHEME) -> EmoVclip:
    clip, tokenize = load()
    return EmoVclip(clip, tokenize, scheme, NAMES, seed=0)


class Mortal:
    """Tokens that kill their reader in the middle of epoch 1."""

    def __init__(self, tokens: LiveTokens) -> None:
        self._tokens, self._read = tokens, 0

    def __call__(self, clips: Sequence[int], epoch: int) -> tuple[Tensor, Tensor | None]:
        self._read += epoch == 1
        if self._read > 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._tokens(clips, epoch)


def rehearse(
    workers: Workers = ALONE, recipe: PromptRecipe = RECIPE, progress: Path | None = None, die: bool = False
) -> EmoVclip:
    """Tune on drawn clips."""
    frames, labels = pictures(CLIPS)
    model = fresh_model(recipe.scheme)
    live = LiveTokens(model, frames, recipe.augmentation, seed=0)
    tokens = Mortal(live) if die else live
    tune(recipe, model, tokens, labels, np.arange(CLIPS), seed=0, workers=workers, progress=progress, save_every=1)
    return model


if __name__ == "__main__":
    rank, world, meeting, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    tuned = rehearse(Workers.here(), progress=out.with_suffix(".progress"), die="die" in sys.argv)
    if rank == 0:
        write_tensors(out, tuned.tensors())
