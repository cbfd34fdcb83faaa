"""open_clip models of a few thousand weights, drawn at random, and clips for them: what tests of prompts tune and compare."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

NAMES = ("neutral", "angry", "worried")
LAYERS, WIDTH, SIZE_PX = 3, 32, 32
_VISION = {"image_size": SIZE_PX, "patch_size": 8, "width": WIDTH, "layers": LAYERS, "head_width": 8}
_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
CONFIG = {"embed_dim": 24, "vision_cfg": _VISION, "text_cfg": _TEXT}


def tiny_clip(*, quick_gelu: bool = False, custom_text: bool = False) -> nn.Module:
    """The same weights at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
        model: nn.Module = kind(**CONFIG, quick_gelu=quick_gelu)
    set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=SIZE_PX)))
    return model.eval()


@functools.cache
def tokenizer() -> Callable[[Sequence[str]], Tensor]:
    """CLIP's own words."""
    found: Callable[[Sequence[str]], Tensor] = open_clip.SimpleTokenizer(context_length=24)
    return found


def load() -> tuple[nn.Module, Callable[[Sequence[str]], Tensor]]:
    """What `tune_folds` asks for."""
    return tiny_clip(), tokenizer()


def pixels(clips: int, frames: int, seed: int = 0) -> Tensor:
    """Noise as preprocessed frames, `(B, T, 3, S, S)`."""
    return torch.randn(clips, frames, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, *, frames: int = 2, classes: int = len(NAMES)) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """Clips u8 `(T, 40, 40, 3)` whose brightness tells their class, and labels `(N,)`."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    noise = rng.integers(0, 90, (count, frames, 40, 40, 3))
    return [(noise[i] + 80 * labels[i]).astype(np.uint8) for i in range(count)], labels
