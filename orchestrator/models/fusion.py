"""Fusion heads: features of several streams and their presence to class logits.

A head holds J members of an ensemble at once (`grouped`); a single model is J = 1. Every head is made by a recipe, a frozen
dataclass a config can name:

    recipe.build(dims, classes, members)  ──►  head(features {stream: (B, D)}, present (B, M) or (J, B, M))  ──►  logits (J, B, C)

An absent stream is masked out, never multiplied by zero, so whatever its row holds (NaN, too) cannot reach the logits. A clip
without any stream gets the head's bias: the prior it has learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orchestrator.models.grouped import GroupedLinear, GroupedNorm, masked_softmax

KEY_WIDTH = 16  # of the attention: what decides between a handful of streams is simple, and wide keys cost as much as the tokens


def _check(name: str, width: int, dropout: float) -> None:
    if width < 1:
        raise ValueError(f"{name}.width must be at least 1, got {width}")
    if not 0 <= dropout < 1:
        raise ValueError(f"{name}.dropout must be in [0, 1), got {dropout}")


class _Tokens(nn.Module):
    """One token per stream: `(J, B, M, W)`, zeros (or the learnt "missing" token) where absent."""

    def __init__(self, dims: Mapping[str, int], width: int, dropout: float, members: int, *, learn_missing: bool) -> None:
        super().__init__()
        self.streams = tuple(dims)
        self.layers = nn.ModuleList(GroupedLinear(members, size, width) for size in dims.values())
        self.norms = nn.ModuleList(GroupedNorm(members, width) for _ in dims)
        self.dropout = nn.Dropout(dropout)
        self.missing = nn.Parameter(torch.zeros(members, 1, len(dims), width)) if learn_missing else None

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        tokens = [
            self.dropout(nn.functional.gelu(norm(layer(features[stream]))))  # (J, B, W)
            for stream, layer, norm in zip(self.streams, self.layers, self.norms, strict=True)
        ]
        absent = torch.zeros(()) if self.missing is None else self.missing
        return torch.where(present.unsqueeze(-1), torch.stack(tokens, dim=2), absent)


class _Linear(nn.Module):
    """Sum of one linear map per present stream, and a bias: `(J, B, C)`."""

    def __init__(self, dims: Mapping[str, int], classes: int, members: int) -> None:
        super().__init__()
        self.streams = tuple(dims)
        self.experts = nn.ModuleList(GroupedLinear(members, size, classes, gain=0.0) for size in dims.values())
        self.bias = nn.Parameter(torch.zeros(members, 1, classes))

    def told(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Logits by stream, `(J, B, M, C)`, zeros where absent."""
        told = [expert(features[stream]) for stream, expert in zip(self.streams, self.experts, strict=True)]
        return torch.where(present.unsqueeze(-1), torch.stack(told, dim=2), 0.0)

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        return self.told(features, present).sum(dim=2) + self.bias


class _Attention(nn.Module):
    def __init__(self, recipe: AttentionFusion, dims: Mapping[str, int], classes: int, members: int) -> None:
        super().__init__()
        self.tokens = _Tokens(dims, recipe.width, recipe.dropout, members, learn_missing=recipe.learn_missing)
        self.key = GroupedLinear(members, recipe.width, KEY_WIDTH)
        self.query = GroupedLinear(members, KEY_WIDTH, 1, gain=0.0)  # starts as a plain mean of the tokens
        self.classify = GroupedLinear(members, recipe.width, classes, gain=0.0)  # and silent: the linear map learns first
        self.linear = _Linear(dims, classes, members) if recipe.residual else None
        self.learn_missing = recipe.learn_missing

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        tokens = self.tokens(features, present)  # (J, B, M, W)
        flat = tokens.flatten(1, 2)  # (J, B * M, W)
        scores = self.query(torch.tanh(self.key(flat))).view(tokens.shape[:3])
        mask = torch.ones_like(scores, dtype=torch.bool) if self.learn_missing else present.expand(scores.shape)
        fused = (masked_softmax(scores, mask).unsqueeze(-1) * tokens).sum(dim=2)  # (J, B, W)
        logits: Tensor = self.classify(fused)
        return logits if self.linear is None else logits + self.linear(features, present)


class _Concatenation(nn.Module):
    def __init__(self, recipe: Concatenation, dims: Mapping[str, int], classes: int, members: int) -> None:
        super().__init__()
        self.tokens = _Tokens(dims, recipe.width, recipe.dropout, members, learn_missing=recipe.learn_missing)
        self.hidden = GroupedLinear(members, recipe.width * len(dims), recipe.width)
        self.dropout = nn.Dropout(recipe.dropout)
        self.classify = GroupedLinear(members, recipe.width, classes)

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        joined = self.tokens(features, present).flatten(2)  # (J, B, M * W)
        logits: Tensor = self.classify(self.dropout(nn.functional.gelu(self.hidden(joined))))
        return logits


class _GatedExperts(nn.Module):
    def __init__(self, recipe: GatedExperts, dims: Mapping[str, int], classes: int, members: int) -> None:
        super().__init__()
        self.tokens = _Tokens(dims, recipe.width, recipe.dropout, members, learn_missing=False)
        self.experts = nn.ModuleList(GroupedLinear(members, recipe.width, classes) for _ in dims)
        self.gate = GroupedLinear(members, recipe.width, 1, gain=0.0)
        self.bias = nn.Parameter(torch.zeros(members, 1, classes))

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        tokens = self.tokens(features, present)  # (J, B, M, W)
        told = torch.stack([expert(tokens[:, :, index]) for index, expert in enumerate(self.experts)], dim=2)  # (J, B, M, C)
        gates = torch.sigmoid(self.gate(tokens.flatten(1, 2))).view(tokens.shape[:3])
        return torch.where(present.unsqueeze(-1), 2 * gates.unsqueeze(-1) * told, 0.0).sum(dim=2) + self.bias


class _MerTools(nn.Module):
    def __init__(self, recipe: MerToolsAttention, dims: Mapping[str, int], classes: int, members: int) -> None:
        super().__init__()
        self.streams = tuple(dims)
        self.encoders = nn.ModuleList(_mlp(members, size, recipe.width, recipe.dropout) for size in dims.values())
        self.attention = _mlp(members, recipe.width * len(dims), recipe.width, recipe.dropout)
        self.weigh = GroupedLinear(members, recipe.width, len(dims))
        self.classify = GroupedLinear(members, recipe.width, classes)

    def forward(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor:
        encoded = [encoder(features[stream]) for stream, encoder in zip(self.streams, self.encoders, strict=True)]
        tokens = torch.where(present.unsqueeze(-1), torch.stack(encoded, dim=2), 0.0)  # (J, B, M, W)
        weights = self.weigh(self.attention(tokens.flatten(2))).unsqueeze(-1)  # (J, B, M, 1), no softmax
        logits: Tensor = self.classify((weights * tokens).sum(dim=2))
        return logits


def _mlp(members: int, width_in: int, width: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(dropout)]
    for size in (width_in, width, width):
        layers += [GroupedLinear(members, size, width), nn.ReLU()]
    return nn.Sequential(*layers)


@dataclass(frozen=True, slots=True)
class AttentionFusion:
    """One token per stream, weighed by attention; a masked softmax shares the weight among the streams that are there.

    - `residual`: a linear map of the features is added to the logits: with few labels it learns first, attention refines.
    - `learn_missing`: an absent stream speaks through a learnt token instead of being left out of the softmax.
    """

    width: int = 64
    dropout: float = 0.5
    residual: bool = True
    learn_missing: bool = False

    def __post_init__(self) -> None:
        _check("head", self.width, self.dropout)

    def build(self, dims: Mapping[str, int], classes: int, members: int = 1) -> nn.Module:
        return _Attention(self, dims, classes, members)


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Tokens of all streams side by side through one hidden layer; zeros (or a learnt token) stand for an absent one."""

    width: int = 64
    dropout: float = 0.3
    learn_missing: bool = False

    def __post_init__(self) -> None:
        _check("head", self.width, self.dropout)

    def build(self, dims: Mapping[str, int], classes: int, members: int = 1) -> nn.Module:
        return _Concatenation(self, dims, classes, members)


@dataclass(frozen=True, slots=True)
class GatedExperts:
    """One expert per stream; their logits add up as evidence, each through a gate its own token opens or shuts."""

    width: int = 64
    dropout: float = 0.3

    def __post_init__(self) -> None:
        _check("head", self.width, self.dropout)

    def build(self, dims: Mapping[str, int], classes: int, members: int = 1) -> nn.Module:
        return _GatedExperts(self, dims, classes, members)


@dataclass(frozen=True, slots=True)
class MerToolsAttention:
    """The utterance-level `attention` model of MERTools (MER2023 baseline, eq. 5, as its code has it: weights without softmax).

    For comparison. Absent streams are zeros after their encoder, which the original does not provide for.
    """

    width: int = 128
    dropout: float = 0.3

    def __post_init__(self) -> None:
        _check("head", self.width, self.dropout)

    def build(self, dims: Mapping[str, int], classes: int, members: int = 1) -> nn.Module:
        return _MerTools(self, dims, classes, members)


@dataclass(frozen=True, slots=True)
class Linear:
    """Multinomial logistic regression on all streams: the honest baseline. An absent stream adds nothing."""

    def build(self, dims: Mapping[str, int], classes: int, members: int = 1) -> nn.Module:
        return _Linear(dims, classes, members)


Head = AttentionFusion | Concatenation | GatedExperts | MerToolsAttention | Linear
