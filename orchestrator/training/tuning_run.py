"""Where a tuning run stands: optimiser, epoch and step, best epoch so far. All of it fits into one file, renamed into place, so
that a run that was killed goes on from its last file as if nothing had happened."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor

from orchestrator.errors import Diverged
from orchestrator.models.emovclip import MAX_LOG_SCALE, EmoVclip
from orchestrator.models.fold_models import install, read_tensors, write_tensors

if TYPE_CHECKING:
    from orchestrator.training.prompts import PromptRecipe


@dataclass(frozen=True, slots=True)
class EpochReport:
    """How an epoch went: mean training loss, and what became of the clips that were only judged."""

    epoch: int
    loss: float
    learning_rate: float
    judged_loss: float | None = None


class TuningRun:
    """Where a run stands: the optimiser, the epoch and step, the best epoch so far; all that a resumed run needs."""

    def __init__(self, model: EmoVclip, recipe: PromptRecipe, steps: int) -> None:
        self._model, self._recipe, self.steps = model, recipe, steps
        self._tensors = dict(model.tensors())
        self._optimizer = torch.optim.AdamW(_groups(self._tensors, recipe), lr=recipe.learning_rate)
        self.epoch = self.step = self._waited = 0
        self._loss, self._best_loss = 0.0, math.inf
        self._best: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """All epochs done, or patience lost."""
        return self.epoch >= self._recipe.epochs or (self._recipe.patience > 0 and self._waited >= self._recipe.patience)

    def advance(self, loss: float) -> None:
        """One step of the optimiser along the gradients that lie in the model."""
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} in epoch {self.epoch}; lower prompts.learning_rate={self._recipe.learning_rate:g}"
            )
        torch.nn.utils.clip_grad_norm_(self._tensors.values(), self._recipe.max_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self._model.logit_scale.clamp_(max=MAX_LOG_SCALE)
        self.step += 1
        self._loss += loss

    def report(self, judged: float | None) -> EpochReport:
        """What the epoch that has just been walked was like."""
        return EpochReport(self.epoch, self._loss / self.steps, self._learning_rate(), judged)

    def end_epoch(self, inner_loss: float | None) -> None:
        """Turn to the next epoch, keeping the weights when the inner loss is the lowest so far."""
        if inner_loss is not None:
            self._waited += 1
            if inner_loss < self._best_loss:
                self._waited, self._best_loss = 0, inner_loss
                self._best = {name: value.detach().clone() for name, value in self._tensors.items()}
        self.epoch, self.step, self._loss = self.epoch + 1, 0, 0.0

    def take_best(self) -> None:
        """Leave the model at its best epoch, when there is a notion of best."""
        if self._best:
            install(self._model, self._best)

    def save(self, path: Path) -> None:
        """Everything a resumed run needs, in one file, whole or not at all."""
        parts: dict[str, Mapping[str, Tensor]] = {"weights": self._tensors, "best": self._best}
        for moment in ("exp_avg", "exp_avg_sq"):
            parts[moment] = {name: self._optimizer.state[value][moment] for name, value in self._tensors.items()}
        where = {"epoch": self.epoch, "step": self.step, "waited": self._waited, "loss": self._loss, "best_loss": self._best_loss}
        named = {f"{part}/{name}": value for part, group in parts.items() for name, value in group.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, named, {"run": json.dumps(where)})

    def restore(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "best": {}, "exp_avg": {}, "exp_avg_sq": {}}
        for name, value in read_tensors(path).items():
            part, _, own = name.partition("/")
            parts[part][own] = value
        with safe_open(path, "pt") as file:
            where = json.loads(file.metadata()["run"])
        self.epoch, self.step, self._waited = where["epoch"], where["step"], where["waited"]
        self._loss, self._best_loss, self._best = where["loss"], where["best_loss"], parts["best"]
        install(self._model, parts["weights"])
        walked = torch.tensor(float(self.epoch * self.steps + self.step))
        for name, value in self._tensors.items():
            moments = {moment: parts[moment][name].to(value.device) for moment in ("exp_avg", "exp_avg_sq")}
            self._optimizer.state[value] = {"step": walked.clone(), **moments}

    def _learning_rate(self) -> float:
        total = self._recipe.epochs * self.steps
        warm = max(1, round(self._recipe.warmup * total))
        done = self.epoch * self.steps + self.step
        rising, falling = (done + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, done - warm) / max(1, total - warm))
        return self._recipe.learning_rate * min(rising, falling)


def _groups(tensors: Mapping[str, torch.nn.Parameter], recipe: PromptRecipe) -> list[dict[str, object]]:
    """Weight decay for the matrices of linear maps; none for prompts, norms, biases and the scale."""
    decayed = [value for name, value in tensors.items() if name.endswith(".weight") and value.ndim == 2]
    chosen = {id(value) for value in decayed}
    free = [value for value in tensors.values() if id(value) not in chosen]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
