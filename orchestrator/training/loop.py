"""The training loop of one group of members: a fixed schedule, no early stop, so nothing a fold is judged by steers it.

    rows of the step (shared)  ──►  features: mixup, mask, noise (shared)  ──►  presence: modality dropout (per member)
        ──►  head  ──►  soft cross-entropy, per-member weights  [+ consistency on unlabelled rows]  ──►  AdamW, cosine to 0

All members see the same rows; weight 0 hides a row from a member. Their losses are summed: members share no parameter, so each
gets the gradient of its own loss. Nothing waits for the device inside the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from orchestrator.errors import Diverged
from orchestrator.training.columns import Columns
from orchestrator.training.objectives import class_factors, consistency, smooth, soft_cross_entropy

if TYPE_CHECKING:
    from orchestrator.training.ensemble import FusionRecipe

OnEpoch = Callable[[int, float], None]


def fit_group(
    recipe: FusionRecipe,
    head: nn.Module,
    labelled: Columns,
    targets: Tensor,
    weights: Tensor,
    *,
    unlabelled: Columns | None,
    on_epoch: OnEpoch,
) -> None:
    """Train `head` (J members) in place on `targets` `(J, N, C)` and `weights` `(J, N)`, rows as in `labelled`.

    Draws from torch's global generator. Raises Diverged when a loss is not finite.
    """
    targets = smooth(targets, recipe.label_smoothing)
    factors = class_factors(targets, weights) if recipe.class_balance != "none" else torch.ones_like(weights)
    chance = weights.mean(dim=0) if recipe.class_balance != "oversample" else (weights * factors).mean(dim=0)
    if recipe.class_balance == "weights":
        weights = weights * factors
    weights = weights / weights.mean(dim=1, keepdim=True).clamp(min=1e-12)
    batch = min(recipe.batch_size, len(labelled))
    per_epoch = math.ceil(len(labelled) / batch)
    steps = min(max(recipe.epochs * per_epoch, recipe.min_steps), recipe.max_steps)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rows = _rows(len(labelled), batch, chance if recipe.class_balance == "oversample" else None)
    others = None if unlabelled is None else _rows(len(unlabelled), min(batch, len(unlabelled)), None)
    head.train()
    for epoch in range(math.ceil(steps / per_epoch)):
        losses: list[Tensor] = []
        for _ in range(min(per_epoch, steps - epoch * per_epoch)):
            index = next(rows)
            loss = _supervised(recipe, head, labelled, targets, weights, index)
            if others is not None and unlabelled is not None and recipe.consistency > 0:
                loss = loss + recipe.consistency * _unsupervised(recipe, head, unlabelled, next(others), len(targets))
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach().mean())  # stays on the device
        mean = torch.stack(losses).mean().item()
        if not math.isfinite(mean):
            raise Diverged(f"the loss is {mean} in epoch {epoch}; lower fusion.lr (now {recipe.lr})")
        on_epoch(epoch, mean)


def _rows(count: int, batch: int, chance: Tensor | None) -> Iterator[Tensor]:
    """Row indices `(B,)` of one step after the other: shuffled passes over all rows, or drawn by `chance` `(N,)`."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat(
                [left, torch.randperm(count) if chance is None else torch.multinomial(chance, count, replacement=True)]
            )
        yield left[:batch]
        left = left[batch:]


def _supervised(recipe: FusionRecipe, head: nn.Module, data: Columns, targets: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    seen = data.rows(index)
    keep = recipe.modality_dropout.keep(seen.present, tuple(seen.values), len(targets))
    if not recipe.mixup:
        return soft_cross_entropy(head(_noisy(recipe, seen.values), keep), targets[:, index], weights[:, index])
    partner, share = _partners(weights[:, index] > 0), float(torch.distributions.Beta(recipe.mixup, recipe.mixup).sample())
    values = {stream: share * rows + (1 - share) * rows[partner] for stream, rows in seen.values.items()}
    logits = head(_noisy(recipe, values), keep)
    own = soft_cross_entropy(logits, targets[:, index], weights[:, index])
    return share * own + (1 - share) * soft_cross_entropy(logits, targets[:, index[partner]], weights[:, index[partner]])


def _unsupervised(recipe: FusionRecipe, head: nn.Module, data: Columns, index: Tensor, members: int) -> Tensor:
    seen = data.rows(index)
    head.eval()
    with torch.no_grad():
        full = head(seen.values, seen.present)
    head.train()
    keep = recipe.modality_dropout.keep(seen.present, tuple(seen.values), members)
    return consistency(head(_noisy(recipe, seen.values), keep), full, recipe.consistency_threshold)


def _noisy(recipe: FusionRecipe, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if recipe.feature_noise:
        values = {stream: rows + recipe.feature_noise * torch.randn_like(rows) for stream, rows in values.items()}
    if recipe.feature_mask:
        values = {stream: nn.functional.dropout(rows, recipe.feature_mask) for stream, rows in values.items()}
    return values


def _partners(seen: Tensor) -> Tensor:
    """For each of B rows another one that the same members learn from (`seen` bool `(J, B)`): mixing crosses no fold."""
    pattern = torch.unique(seen.t(), dim=0, return_inverse=True)[1]  # (B,)
    order = torch.argsort(pattern + torch.rand(len(pattern), device=pattern.device))
    ranked = pattern[order]
    following = torch.where(ranked == ranked.roll(-1), order.roll(-1), _firsts(ranked, order))
    partner = torch.empty_like(order)
    partner[order] = following
    return partner


def _firsts(ranked: Tensor, order: Tensor) -> Tensor:
    """The first row of each row's pattern: the last of a pattern mixes with it."""
    return order[torch.searchsorted(ranked, ranked)]
