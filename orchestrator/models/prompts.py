"""What learns in EmoVCLIP: small tensors laid around a frozen CLIP, and the scheme that says which of them there are.

The scheme is that of Vita-CLIP (Wasim et al., CVPR 2023), with the choices it leaves open as switches. For a tower of L blocks,
width C, H heads, prompts from block k upward, T frames, M global prompts, text width W and K classes, the tensors are

    visual.time                      (T, C)         added to every token of frame t where the prompts begin
    visual.globals                   (L - k, M, C)  the same for all frames and clips
    visual.locals                    (L - k, T, C)  plus the projected class tokens: differs from clip to clip
    visual.cls_proj.{i}.weight       (C, C)         i < L - k: projects the T class tokens to Z
    visual.cls_proj.{i}.bias         (C)
    visual.summary.{i}.norm.weight   (C)            i < L - k, or only 0 when shared: S = Z + attention over T of norm(Z)
    visual.summary.{i}.norm.bias     (C)
    visual.summary.{i}.qkv.weight    (3C, C)        query, key and value, one below the other
    visual.summary.{i}.qkv.bias      (3C)
    visual.summary.{i}.out.weight    (C, C)
    visual.summary.{i}.out.bias      (C)
    visual.summary.{i}.qkv.0.weight  (r, C)         low_rank, instead of qkv and out: x to x A^T B^T + b
    visual.summary.{i}.qkv.1.weight  (3C, r)
    visual.summary.{i}.qkv.1.bias    (3C)
    visual.summary.{i}.out.0.weight  (r, C)
    visual.summary.{i}.out.1.weight  (C, r)
    visual.summary.{i}.out.1.bias    (C)
    text.context                     (K, n, W)      class-specific; (n, W) when shared
    logit_scale                      ()             logarithm of the cosine's factor, at most ln 100

ViT-B/16, K = 6, n = 8, T = 8, M = 8, k = 0, full summary: 35,632,129 weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.seams import Json

Tokenize = Callable[[Sequence[str]], Tensor]

# What captions of faces call an emotion. A CLIP of faces that never read "worried" is at chance for it.
WORDS: Mapping[str, tuple[str, ...]] = {
    "worried": ("worried", "fearful", "afraid"),
    "fear": ("fearful", "afraid"),
    "anger": ("angry",),
    "disgust": ("disgusted",),
    "happiness": ("happy",),
    "sadness": ("sad",),
    "surprise": ("surprised",),
}


@dataclass(frozen=True, slots=True)
class PromptScheme:
    """Which tensors learn, and where they stand.

    - `frames`: T that time embeddings and local prompts are learnt for; clips of another length interpolate them.
    - `first_layer`: k, the first block with prompts; what lies below is frozen and can be cached. 0 is the published scheme, -1
      the last block alone, the number of blocks leaves the whole tower frozen: then only the class sentences learn.
    - `summary`: form of the attention over the T class tokens; `rank` is that of `low_rank`.
    - `context`: learnable words of the class sentence: so many random ones, or those of a phrase; 0 or "" keeps the sentences
      fixed. `class_position`: where the class name stands among them.
    - `words`: what a class is called in a sentence, one or more; a class without an entry by its name. Sentences of all its words
      are averaged, fixed and learnt ones alike.
    - `templates`: fixed sentences, one `{}` each, averaged: the anchor, and the classes themselves when there is no context.
    - `descriptions`: instead of templates, several sentences for each class, in the order of the classes.
    """

    frames: int = 8
    first_layer: int = -1
    time: bool = True
    global_prompts: int = 8
    local_prompts: bool = True
    summary: Literal["full", "shared", "low_rank", "none"] = "none"
    rank: int = 16
    context: int | str = "a person who looks"
    class_specific: bool = True
    class_position: Literal["end", "middle", "front"] = "end"
    words: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: WORDS)
    templates: tuple[str, ...] = ("a person who looks {}", "a photo of a {} face", "a {} facial expression")
    descriptions: tuple[tuple[str, ...], ...] = ()
    learn_scale: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", {name: tuple(words) for name, words in self.words.items()})
        object.__setattr__(self, "templates", tuple(self.templates))
        object.__setattr__(self, "descriptions", tuple(tuple(sentences) for sentences in self.descriptions))
        if self.frames < 1 or self.global_prompts < 0 or self.rank < 1:
            raise ValueError(f"prompts need frames and rank >= 1, global_prompts >= 0, got {self}")
        if self.summary not in ("full", "shared", "low_rank", "none"):
            raise ValueError(f"summary must be full, shared, low_rank or none, got {self.summary!r}")
        if self.class_position not in ("end", "middle", "front"):
            raise ValueError(f"class_position must be end, middle or front, got {self.class_position!r}")
        if empty := [name for name, words in self.words.items() if not all(words) or not words]:
            raise ValueError(f"words needs at least one word for each class it names, got none for {', '.join(empty)}")
        if any(template.count("{}") != 1 for template in self.templates) or not (self.templates or self.descriptions):
            raise ValueError(f"templates need one {{}} each for the class name, got {list(self.templates)}")

    def identity(self) -> Mapping[str, Json]:
        """All of it decides the features."""
        return asdict(self)

    def called(self, name: str) -> tuple[str, ...]:
        """The words for a class."""
        return self.words.get(name, (name,))

    def first(self, layers: int) -> int:
        """k for a tower of so many blocks. Raises ValueError for a block it does not have."""
        if not -layers <= self.first_layer <= layers:
            raise ValueError(f"first_layer={self.first_layer}, but the tower has {layers} blocks: choose -{layers} to {layers}")
        return self.first_layer + layers if self.first_layer < 0 else self.first_layer

    @property
    def projects(self) -> bool:
        """Whether something reads the projected class tokens."""
        return self.local_prompts or self.summary != "none"


class TemporalAttention(nn.Module):
    """S = Z + attention over the T class tokens of norm(Z): `(B, T, C)` to the same, with the weights when asked for."""

    def __init__(self, width: int, heads: int, rank: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width) if rank is None else low_rank(width, 3 * width, rank)
        self.out = nn.Linear(width, width) if rank is None else low_rank(width, width, rank)

    def forward(self, z: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self._heads(z)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=None if mask is None else mask[:, None, None, :])
        shift: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return z + shift

    def weights(self, z: Tensor, mask: Tensor | None) -> Tensor:
        """How much each frame is looked at, `(B, T)`: mean over heads and over the frames that look."""
        query, key, _ = self._heads(z)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, T, T)
        valid = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device) if mask is None else mask
        attention = scores.masked_fill(~valid[:, None, None, :], -torch.inf).softmax(dim=-1).mean(dim=1)
        return (attention * valid[:, :, None]).sum(dim=1) / valid.sum(dim=1, keepdim=True)

    def _heads(self, z: Tensor) -> tuple[Tensor, ...]:
        qkv: Tensor = self.qkv(self.norm(z))  # (B, T, 3C)
        return torch.unbind(qkv.view(*z.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4))  # each (B, H, T, C / H)


def low_rank(inputs: int, outputs: int, rank: int) -> nn.Sequential:
    """A linear map of rank r that starts at zero, as LoRA does."""
    up = nn.Linear(rank, outputs)
    nn.init.zeros_(up.weight)
    nn.init.zeros_(up.bias)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), up)


class VisualPrompts(nn.Module):
    """Everything that learns beside the visual tower; shapes in the header of this file."""

    def __init__(self, scheme: PromptScheme, *, layers: int, width: int, heads: int, patch_px: int) -> None:
        super().__init__()
        depth = layers - scheme.first(layers)
        bound = math.sqrt(6 / (3 * patch_px**2 + width))  # Xavier over a patch, as VPT has it
        self.time = nn.Parameter(torch.zeros(scheme.frames, width)) if scheme.time and depth else None
        self.globals = _uniform(bound, depth, scheme.global_prompts, width) if scheme.global_prompts and depth else None
        self.locals = _uniform(bound, depth, scheme.frames, width) if scheme.local_prompts and depth else None
        self.cls_proj = nn.ModuleList(nn.Linear(width, width) for _ in range(depth if scheme.projects else 0))
        rank = scheme.rank if scheme.summary == "low_rank" else None
        attentions = min(depth, {"none": 0, "shared": 1}.get(scheme.summary, depth))
        self.summary = nn.ModuleList(TemporalAttention(width, heads, rank) for _ in range(attentions))

    def attention(self, layer: int) -> TemporalAttention | None:
        """The summary attention of a prompted layer, counted from the first one."""
        if not self.summary:
            return None
        found = self.summary[min(layer, len(self.summary) - 1)]
        assert isinstance(found, TemporalAttention)
        return found


def _uniform(bound: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def resample(table: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """Rows of `table` `(T0, C)` for clips of other lengths, linear between neighbours: `(B, frames, C)`, last rows padding."""
    steps = torch.arange(frames, device=table.device)[None] * (len(table) - 1) / (lengths[:, None] - 1).clamp(min=1)  # (B, T)
    steps = steps.clamp(max=len(table) - 1)
    low = steps.floor().long()
    high = (low + 1).clamp(max=len(table) - 1)
    share = (steps - low)[..., None].to(table.dtype)
    return torch.lerp(table[low], table[high], share)
