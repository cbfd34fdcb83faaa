"""EmoVCLIP: a frozen open_clip model that sees a clip as T frames and knows emotions by prompted sentences.

    frames (B, T, 3, H, W) ─► trunk: patches and blocks below k, nothing learns ─► tokens (B, T, N + 1, C)   can be cached
    tokens ─► blocks k .. L-1, each reads [class token | local x T | global x M | patches | summary] ─► class tokens (B, T, C)
           ─► norm, projection, mean over frames ─► embedding (B, E) ─► cosine with the class sentences ─► logits (B, K)

Prompts are keys and values only: what the published scheme computes at their places is thrown away before or after the MLP, so
it is never computed here. Behind the last block only the class token is read, so only it is a query there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from orchestrator.models.class_text import LearntContext, TextTower, class_sentences, zero_shot
from orchestrator.models.prompts import PromptScheme, Tokenize, VisualPrompts, resample

if TYPE_CHECKING:  # open_clip takes two seconds to import, which jobs without prompts need not wait for
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

MAX_LOG_SCALE = math.log(100)  # CLIP's own bound


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model makes of B clips.

    - `hidden` `(B, C)`: mean over frames before the projection. `embedding` `(B, E)`: behind it, not normalised.
    - `logits` `(B, K)`. `frame_logits` `(B, T, K)`: their exact parts; a clip's logits are the mean over its frames.
    - `attention` `(B, T)`: how much the summary of the last block looks at each frame; even shares without a summary.
    """

    hidden: Tensor
    embedding: Tensor
    logits: Tensor
    frame_logits: Tensor
    attention: Tensor


class EmoVclip(nn.Module):
    """Prompts around a frozen CLIP. Freezes the weights of `clip` and puts it into evaluation mode.

    `tensors()` lists all that learns; a checkpoint holds nothing else. Raises ValueError for a model that is not a CLIP ViT read
    at its class token, and for a scheme in which nothing learns.
    """

    def __init__(self, clip: nn.Module, tokenize: Tokenize, scheme: PromptScheme, names: Sequence[str], *, seed: int) -> None:
        super().__init__()
        self.scheme = scheme
        self.clip = clip.requires_grad_(False).eval()
        self.tower = vision_tower(clip)
        self.first_layer = scheme.first(len(self.tower.transformer.resblocks))
        self.checkpointing = False  # a second forward pass for less memory
        text = TextTower(clip)
        self.register_buffer("anchors", zero_shot(text, tokenize, class_sentences(scheme, names)), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.visual = VisualPrompts(
                scheme,
                layers=len(self.tower.transformer.resblocks),
                width=self.tower.conv1.out_channels,
                heads=self.tower.transformer.resblocks[0].attn.num_heads,
                patch_px=self.tower.patch_size[0],
            ).to(text.device)
            self.text = LearntContext(text, tokenize, scheme, names) if scheme.context else None
        scale = clip.get_parameter("logit_scale").detach().clone().reshape(())
        self.logit_scale = nn.Parameter(scale.clamp(max=MAX_LOG_SCALE), requires_grad=scheme.learn_scale)
        if not self.tensors():
            raise ValueError("nothing learns: give the scheme a context, prompts below the last block, or learn_scale")

    def tensors(self) -> Mapping[str, nn.Parameter]:
        """Every tensor that learns, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def classes(self) -> Tensor:
        """Unit vectors of the class sentences, `(K, E)`: once a step is enough, whatever the number of clips."""
        return self.get_buffer("anchors") if self.text is None else self.text()

    @torch.no_grad()
    def trunk(self, frames: Tensor) -> Tensor:
        """What lies below the prompts, `(B, T, 3, H, W)` to tokens `(B, T, N + 1, C)`; a frame's tokens hang on it alone."""
        tower = self.tower
        x: Tensor = tower.conv1(frames.flatten(0, 1)).flatten(2).transpose(1, 2)  # (BT, N, C)
        x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], dim=1) + tower.positional_embedding
        if self.first_layer:
            x = tower.ln_pre(x)
            for block in tower.transformer.resblocks[: self.first_layer]:
                x = block(x)
        if self.first_layer == len(tower.transformer.resblocks):
            x = x[:, :1]  # nothing above reads the patches
        return x.reshape(*frames.shape[:2], *x.shape[1:])

    def forward(self, tokens: Tensor, classes: Tensor, mask: Tensor | None = None) -> Seen:
        """Clips as the classes see them.

        `tokens` `(B, T, N + 1, C)` come from `trunk`, `classes` `(K, E)` from `classes()`; `mask` `(B, T)` is True on frames that
        are there, None when all are. Padded frames change nothing.
        """
        tops, attention = self._blocks(tokens, mask)  # (B, T, C), (B, T)
        normed = self.tower.ln_post(tops)
        projected = normed @ self.tower.proj  # (B, T, E)
        embedding = _mean(projected, mask)
        scale = self.logit_scale.clamp(max=MAX_LOG_SCALE).exp()
        frame_logits = scale * (projected / embedding.norm(dim=-1)[:, None, None]) @ classes.T
        return Seen(_mean(normed, mask), embedding, _mean(frame_logits, mask), frame_logits, attention)

    @torch.no_grad()
    def zero_shot(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits `(B, K)` of the frozen CLIP against the fixed sentences: nothing that learns has a say."""
        tower, x = self.tower, tokens.flatten(0, 1)
        if not self.first_layer:
            x = tower.ln_pre(x)
        for block in tower.transformer.resblocks[self.first_layer :]:
            x = block(x)
        embedding = tower.ln_post(x[:, 0]) @ tower.proj  # (BT, E)
        voted = F.normalize(_mean(embedding.view(*tokens.shape[:2], -1), mask), dim=-1)
        return self.clip.get_parameter("logit_scale").exp() * voted @ self.get_buffer("anchors").T

    def _blocks(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Class tokens behind the last block, `(B, T, C)`, and the frames its summary looks at, `(B, T)`."""
        frames = x.shape[1]
        lengths = torch.full(x.shape[:1], frames, device=x.device) if mask is None else mask.sum(dim=1)
        if self.visual.time is not None:
            x = x + resample(self.visual.time, lengths, frames)[:, :, None].to(x.dtype)
        if not self.first_layer:
            x = self.tower.ln_pre(x)
        attention = (torch.ones(x.shape[:2], device=x.device) if mask is None else mask) / lengths[:, None]
        blocks = self.tower.transformer.resblocks[self.first_layer :]
        for layer, block in enumerate(blocks):
            last = layer == len(blocks) - 1
            if last and (summary := self.visual.attention(layer)) is not None:
                with torch.no_grad():
                    attention = summary.weights(self.visual.cls_proj[layer](x[:, :, 0]), mask)
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._block, block, x, layer, lengths, mask, last, use_reentrant=False)
            else:
                x = self._block(cast("ResidualAttentionBlock", block), x, layer, lengths, mask, last)
        return x[:, :, 0], attention

    def _block(
        self, block: ResidualAttentionBlock, x: Tensor, layer: int, lengths: Tensor, mask: Tensor | None, last: bool
    ) -> Tensor:
        """One block of the tower with its prompts: tokens `(B, T, S, C)` to the same, or to the class token alone."""
        prompts = self._prompts(layer, x[:, :, 0], lengths, mask)  # each (B or 1, T or 1, P, C)
        local_mask = None if self.visual.locals is None else mask
        kept = x[:, :, :1] if last else x
        kept = kept + torch.as_tensor(block.ls_1(_attend(block, x, prompts, local_mask, class_only=last)))
        return kept + torch.as_tensor(block.ls_2(block.mlp(block.ln_2(kept))))

    def _prompts(self, layer: int, cls: Tensor, lengths: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Local, global and summary prompts of a layer, locals first: `(B, 1, T, C)`, `(1, 1, M, C)`, `(B, T, 1, C)`."""
        visual, prompts = self.visual, []
        z = visual.cls_proj[layer](cls) if visual.cls_proj else cls  # (B, T, C)
        if visual.locals is not None:
            prompts.append((z + resample(visual.locals[layer], lengths, cls.shape[1]))[:, None])
        if visual.globals is not None:
            prompts.append(visual.globals[layer][None, None])
        if (summary := visual.attention(layer)) is not None:
            prompts.append(summary(z, mask)[:, :, None])
        return prompts


def _attend(
    block: ResidualAttentionBlock, x: Tensor, prompts: Sequence[Tensor], mask: Tensor | None, *, class_only: bool
) -> Tensor:
    """Self-attention of a block whose keys and values also come from prompts: `(B, T, S, C)`, or `(B, T, 1, C)`."""
    clips, frames, _, width = x.shape
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    normed = block.ln_1(x)
    query = F.linear(normed[:, :, :1] if class_only else normed, weight[:width], bias[:width])
    sources = [normed, *(block.ln_1(prompt) for prompt in prompts)]
    pairs = [F.linear(source, weight[width:], bias[width:]).expand(clips, frames, -1, -1) for source in sources]
    heads = (block.attn.num_heads, width // block.attn.num_heads)
    both = torch.cat(pairs, dim=2).view(clips * frames, -1, 2, *heads)  # (BT, S + P, 2, H, d)
    key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
    query = query.view(clips * frames, -1, *heads).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=_key_mask(mask, pairs))  # (BT, H, S, d)
    attended = F.linear(mixed.transpose(1, 2).flatten(2), block.attn.out_proj.weight, block.attn.out_proj.bias)
    return attended.view(clips, frames, -1, width)


def _key_mask(mask: Tensor | None, pairs: Sequence[Tensor]) -> Tensor | None:
    """Which keys may be read, `(BT, 1, 1, S + P)`: all but the local prompts of padded frames, which stand second."""
    if mask is None:
        return None
    readable = [torch.ones(pair.shape[:3], dtype=torch.bool, device=mask.device) for pair in pairs]
    readable[1] = mask[:, None, :].expand(-1, mask.shape[1], -1)  # (B, T, T)
    return torch.cat(readable, dim=2).flatten(0, 1)[:, None, None]


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the frames that are there, `(B, T, ...)` to `(B, ...)`."""
    if mask is None:
        return values.mean(dim=1)
    return (values * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def pad_clips(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Clips `(T_b, ...)` to `(B, T, ...)`, the last frame repeated, and a mask `(B, T)` when lengths differ."""
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    padded = torch.stack([torch.cat([row, row[-1:].expand(longest - len(row), *row.shape[1:])]) for row in rows])
    mask = torch.arange(longest)[None] < lengths[:, None]
    return padded, None if bool(mask.all()) else mask


def vision_tower(clip: nn.Module) -> VisionTransformer:
    """The visual half of a CLIP. Raises ValueError naming what is not a ViT read at its class token."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    tower = clip.get_submodule("visual")
    if not isinstance(tower, VisionTransformer):
        raise ValueError(f"prompts need open_clip's own ViT, but the visual tower is a {type(tower).__name__}: choose a ViT-*")
    if tower.pool_type != "tok" or tower.attn_pool is not None:
        raise ValueError(f"prompts need a ViT read at its class token, but this one pools by {tower.pool_type!r}")
    if not isinstance(tower.transformer.resblocks[0], ResidualAttentionBlock):
        raise ValueError(f"prompts need plain attention blocks, but these are {type(tower.transformer.resblocks[0]).__name__}")
    return tower
