"""EmoVCLIP's forward and backward pass against a plain hand-written version of the same scheme, one thread, random weights.

    python -m benchmarks.emovclip                       ViT-B/16, 8 frames, 6 classes, 3 clips a step
    python -m benchmarks.emovclip --model ViT-B-32      any ViT open_clip knows

The plain version builds every block's whole token sequence by concatenation, attends by einsum over all of it, carries prompts
through projections and (global ones) the MLP, finishes all tokens of the last block and reads sentences of full length. Both give
the same logits; the difference is printed. Each variant runs in a process of its own, so that peak memory is its own.

Ours walks a step as the trainer does: class sentences once, clips one after the other, gradients added up. The plain version has
its sentences in every forward pass, so it sees all clips of a step at once; "at once" is ours doing the same.

The limit: with frozen weights a token costs 12 C^2 multiplications a block and direction. Ours computes N + 1 of the plain
T + M + N + 2 tokens through query, output and MLP, one token of the last block, and the text tower up to the longest sentence:
0.855 of the multiplications at 3 clips a step, 0.88 for very many. Ten activations a token and block are kept for the backward
pass (two before norms, four of attention, four widths before the MLP's GELU); fewer would need a second forward pass.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import torch
from open_clip import get_tokenizer
from torch import Tensor
from torch.nn import functional as F

from orchestrator.encoders.clip import RANDOM, load_clip
from orchestrator.models.emovclip import EmoVclip
from orchestrator.models.prompts import PromptScheme

NAMES = ("neutral", "angry", "happy", "sad", "worried", "surprise")
VARIANTS = {"plain": 0, "k = 0": 0, "k = 0, at once": 0, "k = L/2, warm trunk": None}


def plain_logits(model: EmoVclip, frames: Tensor) -> Tensor:
    """The scheme written down as it is told: frames `(B, T, 3, H, W)` to logits `(B, K)`; k must be 0."""
    tower, visual = model.tower, model.visual
    clips, count = frames.shape[:2]
    x = tower.conv1(frames.flatten(0, 1)).flatten(2).transpose(1, 2)  # (BT, N, C)
    x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], dim=1) + tower.positional_embedding
    x = tower.ln_pre(x + visual.time.repeat(clips, 1)[:, None])
    for layer, block in enumerate(tower.transformer.resblocks):
        z = visual.cls_proj[layer](x[:, 0].view(clips, count, -1))  # (B, T, C)
        attention = visual.attention(layer)
        width = z.shape[-1]
        summary = z
        if attention is not None:
            qkv = attention.qkv(attention.norm(z))
            summary = z + attention.out(einsum_attention(*qkv.split(width, dim=-1), attention.heads))
        local = (visual.locals[layer] + z).repeat_interleave(count, dim=0)  # (BT, T, C)
        shared = visual.globals[layer].expand(len(x), -1, -1)
        tokens = torch.cat([x[:, :1], local, shared, x[:, 1:], summary.reshape(-1, 1, width)], dim=1)
        normed = block.ln_1(tokens)
        qkv = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
        mixed = einsum_attention(*qkv.split(width, dim=-1), block.attn.num_heads)
        tokens = tokens + F.linear(mixed, block.attn.out_proj.weight, block.attn.out_proj.bias)
        tokens = torch.cat([tokens[:, :1], tokens[:, 1 + count : -1]], dim=1)  # locals and summary go
        tokens = tokens + block.mlp(block.ln_2(tokens))
        x = torch.cat([tokens[:, :1], tokens[:, 1 + len(visual.globals[layer]) :]], dim=1)  # globals go
    embedding = (tower.ln_post(x)[:, 0] @ tower.proj).view(clips, count, -1).mean(dim=1)
    return model.logit_scale.exp() * F.normalize(embedding, dim=-1) @ plain_classes(model).T


def plain_classes(model: EmoVclip) -> Tensor:
    """Class sentences of full length through the text tower, `(K, E)`."""
    text, clip = model.text, model.clip
    assert text is not None
    rows = text.fixed.scatter(1, text.places[..., None].expand(-1, -1, text.fixed.shape[-1]), text.context)
    padded = F.pad(rows, (0, 0, 0, clip.positional_embedding.shape[0] - rows.shape[1])) + clip.positional_embedding
    x = clip.ln_final(clip.transformer(padded, attn_mask=clip.attn_mask))
    return F.normalize(x[torch.arange(len(x)), text.ends] @ clip.text_projection, dim=-1)


def einsum_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention that spells out its weights, `(B, S, C)`."""
    query, key, value = (part.unflatten(-1, (heads, -1)) for part in (query, key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(dim=-1), value).flatten(2)


def build(model: str, variant: str) -> EmoVclip:
    """The published scheme, from block 0 or from half the depth."""
    clip = load_clip(model, RANDOM)
    layers = len(clip.visual.transformer.resblocks)
    scheme = PromptScheme(first_layer=layers // 2 if VARIANTS[variant] is None else 0, summary="full", context=8, words={})
    return EmoVclip(clip, get_tokenizer(model), scheme, NAMES, seed=0)


def measure(name: str, variant: str, clips: int, repeats: int) -> dict[str, float]:
    """CPU-seconds a clip of one training step (forward, backward) and what it adds to the resident memory at its peak."""
    torch.set_num_threads(1)
    model = build(name, variant)
    size = model.tower.image_size[0]
    frames = torch.randn(clips, 8, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(clips) % len(NAMES)
    warm = model.trunk(frames).half() if VARIANTS[variant] is None else None
    weights_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def step() -> None:
        model.zero_grad(set_to_none=True)
        if variant == "plain":
            F.cross_entropy(plain_logits(model, frames), labels).backward()
            return
        classes = model.classes()
        leaf = classes.detach().requires_grad_()
        for part in torch.arange(clips).split(clips if "at once" in variant else 1):
            tokens = model.trunk(frames[part]) if warm is None else warm[part].float()
            loss = F.cross_entropy(model(tokens, leaf).logits, labels[part], reduction="sum") / clips
            loss.backward()
        classes.backward(leaf.grad)

    step()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        step()
        seconds.append((time.process_time() - started) / clips)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": min(seconds), "peak_mb": peak_mb, "step_mb": peak_mb - weights_mb}


def difference(name: str) -> float:
    """Largest difference between the logits of the plain version and ours."""
    model = build(name, "k = 0")
    frames = torch.randn(1, 8, 3, *model.tower.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float((plain_logits(model, frames) - model(model.trunk(frames), model.classes()).logits).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.variant:
        print(json.dumps(measure(told.model, told.variant, told.clips, told.repeats)))
        return
    gap = difference(told.model)
    print(f"{told.model}, 8 frames, 6 classes, {told.clips} clips a step, one thread; logits differ by {gap:.1e}")
    rows = {}
    for variant in VARIANTS:
        command = [sys.executable, "-m", "benchmarks.emovclip", *sys.argv[1:], "--variant", variant]
        rows[variant] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(f"{'':22}{'CPU-s a clip':>14}{'ratio':>8}{'peak MB':>10}{'ratio':>8}{'of it, step MB':>16}{'ratio':>8}")
    plain = rows["plain"]
    for variant, row in rows.items():
        parts = [f"{row[key]:>{wide}.{digits}f}{row[key] / plain[key]:>8.2f}" for key, wide, digits in COLUMNS]
        print(f"{variant:22}" + "".join(parts))


COLUMNS = (("cpu_s", 14, 2), ("peak_mb", 10, 0), ("step_mb", 16, 0))

if __name__ == "__main__":
    main()
