"""Layers of J networks at once: one leading axis holds the members of an ensemble, one matrix product serves them all.

Members share their input as long as it is `(B, D)`; from the first layer on each has its own `(J, B, D)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupedLinear(nn.Module):
    """J linear layers: `(B, in)` or `(J, B, in)` to `(J, B, out)`; weights drawn as `nn.Linear` draws them, times `gain`."""

    def __init__(self, members: int, width_in: int, width_out: int, *, gain: float = 1.0) -> None:
        super().__init__()
        bound = gain / max(1, width_in) ** 0.5
        self.weight = nn.Parameter(torch.empty(members, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, width_out))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.matmul(inputs, self.weight) + self.bias


class GroupedNorm(nn.Module):
    """J root-mean-square norms over the last axis, each with its own scale and shift (after Zhang & Sennrich 2019, eq. 4).

    Epsilon is as large as a loud row: what comes in soft goes out soft, so a stream that is read softly gains no voice here.
    """

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.rms_norm(inputs, inputs.shape[-1:], eps=1.0) * self.scale + self.shift


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among the entries of `mask`; all zeros where the mask is empty."""
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
    return torch.where(mask, weights, 0.0)
