from __future__ import annotations

import math
import re

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.emovclip import plain_logits
from orchestrator.models import prompts
from orchestrator.models.emovclip import MAX_LOG_SCALE, EmoVclip, Seen, pad_clips
from orchestrator.models.prompts import PromptScheme
from tests.tiny_clips import LAYERS, NAMES, WIDTH, pixels, tiny_clip, tokenizer

OFF = {"time": False, "global_prompts": 0, "local_prompts": False, "summary": "none", "context": 0}
SUMMARIES = ("full", "shared", "low_rank", "none")


def build(*, quick_gelu: bool = False, seed: int = 0, **scheme: object) -> EmoVclip:
    small = {"frames": 4, "global_prompts": 2, "first_layer": 0, "context": 3, "summary": "full", "rank": 2} | scheme
    model = EmoVclip(tiny_clip(quick_gelu=quick_gelu), tokenizer(), PromptScheme(**small), NAMES, seed=seed)  # type: ignore[arg-type]
    with torch.no_grad():  # nothing learnt stays where it would hide a mistake
        for value in model.tensors().values():
            if value.ndim:
                value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def see(model: EmoVclip, frames: Tensor, mask: Tensor | None = None) -> Seen:
    return model(model.trunk(frames), model.classes(), mask)


@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("first_layer", [0, 1, LAYERS])
@pytest.mark.parametrize("time", [True, False])
def test_without_its_prompts_it_is_open_clip_itself(quick_gelu: bool, first_layer: int, time: bool) -> None:
    clip = tiny_clip(quick_gelu=quick_gelu)
    model = EmoVclip(clip, tokenizer(), PromptScheme(**OFF | {"time": time, "first_layer": first_layer}), NAMES, seed=0)  # type: ignore[arg-type]
    frames = pixels(2, 3)
    with torch.no_grad():
        own = clip.encode_image(frames.flatten(0, 1)).view(2, 3, -1).mean(dim=1)  # type: ignore[operator]
        seen = see(model, frames)
    assert F.cosine_similarity(seen.embedding, own).min() > 0.99999
    torch.testing.assert_close(seen.logits, model.zero_shot(model.trunk(frames)))


def test_it_is_the_scheme_that_concatenates_and_carries_everything_along() -> None:
    model = build(words={})
    frames = pixels(2, 4)
    torch.testing.assert_close(see(model, frames).logits, plain_logits(model, frames), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("first_layer", [0, 1, LAYERS])
def test_gradients_reach_every_listed_tensor_and_no_other(summary: str, first_layer: int) -> None:
    model = build(summary=summary, first_layer=first_layer)
    see(model, pixels(2, 4)).logits.square().sum().backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert reached == set(model.tensors())
    assert not any(name.startswith("clip.") for name in reached)


@pytest.mark.parametrize("summary", SUMMARIES)
def test_every_tensor_that_learns_stands_in_the_header_with_its_shape(summary: str) -> None:
    told = dict(re.findall(r"^ {4}((?:visual|text)\.\S+|logit_scale) +\((.*?)\)", str(prompts.__doc__), re.M))
    sizes = {"T": 4, "C": WIDTH, "L": LAYERS, "k": 1, "M": 2, "K": len(NAMES), "n": 3, "W": 16, "r": 2}
    for name, value in build(summary=summary, first_layer=1).tensors().items():
        dimensions = told[re.sub(r"^(visual\.(?:cls_proj|summary))\.\d+\.", r"\1.{i}.", name)].replace("3C", "3 * C").split(",")
        shape = [eval(dimension, sizes.copy()) for dimension in dimensions if dimension]
        assert list(value.shape) == shape, name


def test_vit_b_16_with_six_classes_trains_as_many_weights_as_the_published_scheme_says() -> None:
    with torch.device("meta"):
        clip = open_clip.create_model("ViT-B-16", load_weights=False, device="meta")
    published = PromptScheme(frames=8, first_layer=0, global_prompts=8, summary="full", context=8, class_specific=True)
    names = ("neutral", "angry", "happy", "sad", "worried", "surprise")
    model = EmoVclip(clip, open_clip.get_tokenizer("ViT-B-16"), published, names, seed=0)
    shapes = {name: tuple(value.shape) for name, value in model.tensors().items()}
    assert sum(math.prod(shape) for shape in shapes.values()) == 35_632_129
    assert shapes["visual.globals"] == (12, 8, 768)
    assert shapes["visual.cls_proj.11.weight"] == (768, 768)
    assert shapes["visual.summary.0.qkv.weight"] == (2304, 768)
    assert shapes["text.context"] == (6, 8, 512)


@pytest.mark.parametrize("frames", [1, 3, 9])
@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_clip_may_have_any_number_of_frames_and_padding_changes_nothing(frames: int, summary: str) -> None:
    model = build(summary=summary)
    short, long = pixels(1, frames)[0], pixels(1, 11, seed=1)[0]
    padded, mask = pad_clips([short, long])
    assert mask is not None
    for garbage in (padded, torch.where(mask[:, :, None, None, None], padded, 1e3)):
        seen = see(model, garbage, mask)
        for row, alone in enumerate((see(model, short[None]), see(model, long[None]))):
            length = (frames, 11)[row]
            torch.testing.assert_close(seen.logits[row], alone.logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(seen.hidden[row], alone.hidden[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(seen.frame_logits[row, :length], alone.frame_logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(seen.attention[row, :length], alone.attention[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("summary", ["full", "none"])
def test_frames_share_out_their_clips_logits_and_the_attention(summary: str) -> None:
    seen = see(build(summary=summary), pixels(2, 5))
    torch.testing.assert_close(seen.frame_logits.mean(dim=1), seen.logits)
    torch.testing.assert_close(seen.attention.sum(dim=1), torch.ones(2))


def test_frames_hear_of_each_other_through_summary_and_local_prompts_alone() -> None:
    other = pixels(1, 4)
    other[:, 3] = 0
    for scheme, hears in (({"summary": "full", "local_prompts": False}, True), ({"summary": "none"}, True), (OFF, False)):
        model = build(**scheme)
        first, second = see(model, pixels(1, 4)).frame_logits, see(model, other).frame_logits
        norms = [see(model, frames).embedding.norm() for frames in (pixels(1, 4), other)]
        assert torch.allclose(first[0, 0] * norms[0], second[0, 0] * norms[1], atol=1e-5) is not hears


def test_checkpointing_gives_the_same_gradients() -> None:
    model = build()
    found = []
    for model.checkpointing in (False, True):
        found.append(torch.autograd.grad(see(model, pixels(2, 4)).logits.square().sum(), list(model.tensors().values())))
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def test_half_precision_as_on_a_gpu_changes_little() -> None:
    model = build()
    frames, whole = pixels(2, 4), see(model, pixels(2, 4)).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = see(model, frames).logits
        gradients = torch.autograd.grad(half.float().square().sum(), list(model.tensors().values()))
    assert (half - whole).abs().max() < 0.05 * whole.abs().max()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_scale_never_passes_clips_own_bound() -> None:
    model = build()
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert see(model, pixels(1, 2)).logits.abs().max() <= math.exp(MAX_LOG_SCALE) * (1 + 1e-6)


@pytest.mark.parametrize("vision", [{"layers": [1, 1, 1, 1]}, {"pool_type": "avg"}])
def test_a_tower_that_is_not_a_vit_read_at_its_class_token_is_refused(vision: dict[str, object]) -> None:
    text = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(16, {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 8} | vision, text)
    with pytest.raises(ValueError, match="ViT"):
        EmoVclip(clip, tokenizer(), PromptScheme(), NAMES, seed=0)


def test_a_scheme_in_which_nothing_learns_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        build(**OFF | {"learn_scale": False})
