"""What a student is asked for: soft cross-entropy with weights, label smoothing, mixup, consistency, class balance.

All of them take J members at once: logits `(J, B, C)`, targets `(J, B, C)`, weights `(J, B)`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over samples of -sum_c t_c log p_c, by member: `(J,)`. Weights have mean 1 over the training set."""
    return -(weights * (targets * torch.log_softmax(logits, dim=-1)).sum(dim=-1)).mean(dim=-1)


def smooth(targets: Tensor, share: float) -> Tensor:
    """Label smoothing (Szegedy et al. 2016, sec. 7): `share` of every target is spread over all classes."""
    return targets * (1 - share) + share / targets.shape[-1]


def consistency(strong: Tensor, full: Tensor, threshold: float) -> Tensor:
    """FixMatch (Sohn et al. 2020, eq. 4) with soft targets: the strong view must say what the full view says, where that is
    sure to at least `threshold`. Both `(J, B, C)` logits; no gradient through the full view. By member: `(J,)`."""
    told = torch.softmax(full.detach(), dim=-1)
    sure = (told.amax(dim=-1) >= threshold).to(told.dtype)
    return soft_cross_entropy(strong, told, sure)


def class_factors(targets: Tensor, weights: Tensor) -> Tensor:
    """Factor `(J, N)` on each sample's weight after which every class of a member has the same total weight.

    Classes without any sample are left out; soft targets get the mean factor of their classes.
    """
    mass = torch.einsum("jnc,jn->jc", targets, weights)  # (J, C)
    share = mass.sum(dim=-1, keepdim=True) / (mass > 0).sum(dim=-1, keepdim=True).clamp(min=1)
    factors = torch.where(mass > 0, share / mass.clamp(min=1e-12), 0.0)
    return torch.einsum("jnc,jc->jn", targets, factors)
