"""Tune prompts on labelled clips: the same steps here, in a test and under Ray Train, to the same weights.

    epoch ─► shuffle ─► global batch ─► micro-batches dealt to the workers ─► gradients summed in double precision ─► AdamW

A micro-batch is the same clips whatever the number of workers, and sums of doubles do not mind their order: one worker and four
end with the same weights. All randomness hangs on (seed, epoch, clip), so a run that is resumed in the middle of an epoch goes
on as if nothing had happened. The class sentences go through the text tower once a step, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from orchestrator.models.emovclip import EmoVclip, Seen
from orchestrator.models.prompts import PromptScheme
from orchestrator.seams import Json
from orchestrator.training.augmentation import Augmentation
from orchestrator.training.trunk import PLAIN, Tokens
from orchestrator.training.tuning_run import EpochReport, TuningRun
from orchestrator.training.workers import ALONE, Workers

Ints = NDArray[np.int64]
AT_ONCE = 8  # clips that are judged together
JUDGED = 4  # times a run: judging costs a forward pass and changes nothing


@dataclass(frozen=True, slots=True)
class PromptRecipe:
    """All numbers of a tuning run; everything here decides the weights.

    - `clips_per_batch`: clips between two steps of the optimiser, over all workers. `clips_per_micro_batch`: clips that go
      through the tower at once; the rest is accumulation.
    - `learning_rate` rises over `warmup` (share of all steps) and falls along a cosine. `weight_decay` acts on the matrices of
      linear maps alone, not on prompts, norms, biases or the scale.
    - `class_weights`: "balanced" weighs clips against the frequency of their class.
    - `anchor`: weight of KL(frozen CLIP || tuned) on the plain look at each clip.
    - `patience`: epochs without a lower loss on clips set aside (the next fold, so other speakers) before a fold stops, and its
      best epoch is taken; 0 trains for all `epochs` on all training clips. The held-out fold is never asked.
    - `values`: what of a clip becomes its video feature, see `encoders.emovclip.TunedClip`; changes no weight.
    - `looks`: how many looks at a clip (the first one plain, the others augmented) are cached as tokens below `first_layer`, half
      precision; 0 computes them anew in every epoch, and so does first_layer=0, where there is next to nothing to save.
    """

    scheme: PromptScheme = field(default_factory=PromptScheme)
    epochs: int = 20
    clips_per_batch: int = 16
    clips_per_micro_batch: int = 4
    learning_rate: float = 4e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.1
    class_weights: Literal["none", "balanced"] = "balanced"
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    anchor: float = 0.0
    max_norm: float = 1.0
    patience: int = 0
    values: Literal["embedding", "hidden", "embedding+logits"] = "embedding"
    looks: int = 4
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if min(self.epochs, self.clips_per_batch, self.clips_per_micro_batch) < 1:
            raise ValueError(f"epochs, clips_per_batch and clips_per_micro_batch must be at least 1, got {self}")
        if self.learning_rate <= 0 or min(self.weight_decay, self.anchor, self.looks, self.patience) < 0 or self.max_norm <= 0:
            raise ValueError(
                f"learning_rate, max_norm must be positive, weight_decay, anchor, looks, patience not negative: {self}"
            )
        if not (0 <= self.warmup < 1 and 0 <= self.label_smoothing < 1):
            raise ValueError(f"warmup and label_smoothing are shares in [0, 1), got {self}")
        if self.class_weights not in ("none", "balanced"):
            raise ValueError(f"class_weights must be none or balanced, got {self.class_weights!r}")

    def identity(self) -> Mapping[str, Json]:
        """Everything that decides the weights."""
        return {name: value for name, value in asdict(self).items() if name not in ("values", "checkpointing")}


def tune(
    recipe: PromptRecipe,
    model: EmoVclip,
    tokens: Tokens,
    labels: Ints,
    train: Ints,
    *,
    seed: int,
    stop_by: Ints | None = None,
    judge: Ints | None = None,
    workers: Workers = ALONE,
    on_epoch: Callable[[EpochReport], None] | None = None,
    progress: Path | None = None,
    save_every: int = 50,
) -> None:
    """Tune `model` in place on the clips `train` (indices into `labels` and `tokens`).

    `stop_by` are clips set aside to stop by, for a recipe with patience. `judge` are clips whose loss is reported `JUDGED` times
    and never acted on. `progress` names a file that is renewed every
    `save_every` steps and at each epoch's end; when it is there, the run goes on from it. Raises Diverged.
    """
    if (stop_by is None) is (recipe.patience > 0):
        raise ValueError(f"stop_by goes with patience: got patience={recipe.patience} and stop_by={stop_by}")
    learnt_from = np.setdiff1d(train, [] if stop_by is None else stop_by)
    weights = _clip_weights(labels, learnt_from, recipe)
    frozen = predict(model, tokens, np.arange(len(labels)), model.zero_shot) if recipe.anchor else None
    lesson = _Lesson(recipe, model, tokens, torch.tensor(labels), weights, frozen, workers)
    run = TuningRun(model, recipe, math.ceil(len(learnt_from) / recipe.clips_per_batch))
    if progress is not None and progress.exists():
        run.restore(progress)
    while not run.finished:
        order = np.random.default_rng((seed, run.epoch)).permutation(learnt_from)
        while run.step < run.steps:
            batch = order[run.step * recipe.clips_per_batch :][: recipe.clips_per_batch]
            run.advance(lesson.gradients(batch, run.epoch))
            if progress is not None and workers.rank == 0 and run.step % save_every == 0:
                run.save(progress)
        if on_epoch is not None:
            due = (run.epoch + 1) % max(1, recipe.epochs // JUDGED) == 0
            on_epoch(run.report(None if judge is None or not due else _loss_of(model, tokens, labels, judge, workers)))
        run.end_epoch(None if stop_by is None else _loss_of(model, tokens, labels, stop_by, workers))
        if progress is not None and workers.rank == 0:
            run.save(progress)
    run.take_best()


def predict(
    model: EmoVclip,
    tokens: Tokens,
    clips: Ints,
    score: Callable[[Tensor, Tensor | None], Tensor] | None = None,
) -> Tensor:
    """Logits `(n, K)` of clips as they are, on the CPU; of the tuned model, or of `score` (`model.zero_shot`)."""
    rows = []
    with torch.inference_mode(), _autocast(model):
        classes = model.classes()
        for start in range(0, len(clips), AT_ONCE):
            x, mask = tokens(clips[start : start + AT_ONCE].tolist(), PLAIN)
            logits = model(x, classes, mask).logits if score is None else score(x, mask)
            rows.append(logits.float().cpu())
    return torch.cat(rows)


def look(model: EmoVclip, tokens: Tokens, clips: Ints) -> list[Seen]:
    """What a model makes of each clip as it is, on the CPU, without the batch axis and without padding."""
    seen = []
    with torch.inference_mode(), _autocast(model):
        classes = model.classes()
        for clip in clips.tolist():
            x, _ = tokens([clip], PLAIN)
            told = model(x, classes)
            seen.append(Seen(*(getattr(told, field.name)[0].float().cpu() for field in fields(Seen))))
    return seen


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What a step learns from: one clip's loss is `weights[clip]` times its cross-entropy, plus the pull of the anchor."""

    recipe: PromptRecipe
    model: EmoVclip
    tokens: Tokens
    labels: Tensor  # (N,)
    weights: Tensor  # (N,)
    frozen: Tensor | None  # (N, K)
    workers: Workers

    def gradients(self, batch: Ints, epoch: int) -> float:
        """Put the gradient of a batch's mean loss, over all workers, into the model; the loss."""
        model, tensors = self.model, self.model.tensors()
        visual = [value for name, value in tensors.items() if not name.startswith("text.")]
        classes = model.classes()  # once a step; its own backward pass comes at the end
        leaf = classes.detach().requires_grad_(model.text is not None)
        wanted = [*visual, leaf] if leaf.requires_grad else visual
        total = torch.zeros(1 + sum(value.numel() for value in wanted), dtype=torch.float64, device=leaf.device)
        for micro in self._mine(batch):
            loss = self._loss(micro, epoch, leaf) / float(self.weights[batch].sum())
            found = torch.autograd.grad(loss, wanted)
            total += torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in found)])
        told, *sums = torch.split(self.workers.sum(total), [1, *(value.numel() for value in wanted)])
        for value, part in zip(wanted, sums, strict=True):
            value.grad = part.view_as(value).to(value.dtype)
        if leaf.requires_grad:
            torch.autograd.backward(classes, leaf.grad)
        return float(told)

    def _mine(self, batch: Ints) -> list[Ints]:
        size = self.recipe.clips_per_micro_batch
        micro = [batch[start : start + size] for start in range(0, len(batch), size)]
        return micro[self.workers.rank :: self.workers.world]

    def _loss(self, clips: Ints, epoch: int, classes: Tensor) -> Tensor:
        x, mask = self.tokens(clips.tolist(), epoch)
        with _autocast(self.model):
            logits = self.model(x, classes, mask).logits.float()
        labels, weights = self.labels[clips].to(logits.device), self.weights[clips].to(logits.device)
        each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.recipe.label_smoothing)
        if self.frozen is not None:
            anchor = self.frozen[clips].to(logits.device).log_softmax(dim=-1)
            apart = F.kl_div(logits.log_softmax(dim=-1), anchor, reduction="none", log_target=True)
            each = each + self.recipe.anchor * apart.sum(dim=-1)
        return (weights * each).sum()


def _clip_weights(labels: Ints, train: Ints, recipe: PromptRecipe) -> Tensor:
    """Weight of each clip, `(N,)`: 1, or inverse to the frequency of its class, with mean 1 over the training clips."""
    if recipe.class_weights == "none":
        return torch.ones(len(labels))
    counts = np.bincount(labels[train], minlength=int(labels.max()) + 1)
    return torch.from_numpy((len(train) / np.maximum(counts, 1) / (counts > 0).sum())[labels]).float()


def _loss_of(model: EmoVclip, tokens: Tokens, labels: Ints, clips: Ints, workers: Workers) -> float:
    """Cross-entropy of clips as they are; worker 0 looks, all hear the same."""
    loss = torch.zeros(1, dtype=torch.float64, device=model.logit_scale.device)
    if workers.rank == 0:
        loss += F.cross_entropy(predict(model, tokens, clips), torch.tensor(labels[clips])).to(loss.device)
    return float(workers.sum(loss))


def _autocast(model: EmoVclip) -> AbstractContextManager[object]:
    """bfloat16 on a GPU; single precision on a CPU."""
    cuda = model.logit_scale.device.type == "cuda"
    return torch.autocast("cuda", dtype=torch.bfloat16) if cuda else nullcontext()
