"""Frames to a video feature with any CLIP that open_clip can build.

    frames u8 (T, H, W, 3) ── preprocess_frames ──► (T, 3, S, S) ── image tower ──► (T, D) ── normalise, mean ──► (D,)

Each frame's embedding is scaled to length 1 before the mean and the mean is left as it is: every frame has one vote, a dot
product with a text embedding is the mean cosine of the frames, and the length that is left says how much the frames agree.

Weights are read from safetensors alone: open_clip's own loader opens pickles for OpenAI's models. `models.emovclip` builds on
`load_clip`, `frame_settings`, `preprocess_frames` and `clip_tokenizer`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestrator.encoders.rows import encoded
from orchestrator.encoders.weights import Precision, as_local, digest_of_file, find_model
from orchestrator.errors import ConfigError, ModelUnavailable
from orchestrator.seams import Json
from orchestrator.vocabulary import DecodedClip, Encoded, Floats, modality_of

if TYPE_CHECKING:
    from torch import Tensor, nn


TINY = str(Path(__file__).parent / "tiny_clip")  # ships with the package; `tiny_clip/train.py` made it
RANDOM = "random"
_CONFIG = "open_clip_config.json"
_HUB_FILES = ("open_clip_*.safetensors", _CONFIG, "tokenizer*", "vocab*", "special_tokens_map.json", "merges.txt")
_CLIPS_ON_GPU = 32


@dataclass(frozen=True, slots=True)
class OpenClip:
    """Recipe of a frozen image tower.

    - `model`: a directory or JSON file with an open_clip configuration, `hf-hub:org/name`, or a name open_clip knows
      ("ViT-B-16"). The default is the tiny CLIP of drawn faces that ships with the package.
    - `weights`: a safetensors file, a tag open_clip knows ("laion2b_s34b_b88k"), "random" (seeded, for measuring speed alone), or
      None: the file that lies beside the configuration.
    - `precision`: "auto" is half on a GPU, single on a CPU; name one where both kinds of worker share a store.
    """

    stream: str = "video"
    model: str = TINY
    weights: str | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if modality_of(self.stream) != "video":
            raise ConfigError(f"OpenClip reads frames: its stream is 'video' or 'video.<name>', got {self.stream!r}")
        object.__setattr__(self, "model", as_local(self.model))
        object.__setattr__(self, "weights", as_local(self.weights) if self.weights else None)

    @property
    def reads(self) -> str:
        return "video"

    def identity(self) -> Mapping[str, Json]:
        """Raises ModelUnavailable."""
        files = _find(self.model, self.weights)
        return {
            "encoder": "open_clip",
            "version": 1,
            "architecture": json.loads(files.config.read_text()) if files.config else self.model,
            "weights": digest_of_file(files.weights) if files.weights else RANDOM,
            "pooling": "mean of normalised frames",
            "precision": self.precision,
        }

    def load(self) -> FrameEncoder:
        """Raises ModelUnavailable."""
        return FrameEncoder(self)


class FrameEncoder:
    """A warm image tower."""

    def __init__(self, recipe: OpenClip) -> None:
        from orchestrator.encoders.devices import batches_for, best_device, dtype_of

        self._stream = recipe.stream
        self._device = best_device()
        self._dtype = dtype_of(recipe.precision, self._device)
        self._model = load_clip(recipe.model, recipe.weights).to(self._device, self._dtype)
        self._settings = frame_settings(self._model)
        self._batches = batches_for(self._device, _CLIPS_ON_GPU)
        self.width = embedding_width(self._model)

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        """One row a clip, `(B, D)`; a clip without frames is absent."""
        steps = self.steps([clip for clip in clips if len(clip.frames)])
        rows = [steps.pop(0).mean(axis=0, dtype=np.float64) if len(clip.frames) else None for clip in clips]
        return encoded(self._stream, clips, rows, self.width)

    def steps(self, clips: Sequence[DecodedClip]) -> list[NDArray[np.float32]]:
        """Frame-level features: normalised embeddings `(T, D)` of each clip; every clip must have frames."""
        return self._batches.run([clip.frames for clip in clips], self._forward, length=len)

    def _forward(self, batch: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            pixels = torch.cat([preprocess_frames(frames, *self._settings) for frames in batch])  # (sum of T, 3, S, S)
            embeddings = self._model.encode_image(pixels.to(self._device, self._dtype), normalize=True)  # type: ignore[operator]
            return [part.float().cpu().numpy() for part in embeddings.split([len(frames) for frames in batch])]


class FrameSettings(NamedTuple):
    """How a CLIP wants its frames; the arguments of `preprocess_frames` after the first."""

    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"


def frame_settings(model: nn.Module) -> FrameSettings:
    """What the model's own preprocessing says. Raises ConfigError for a shape of image that is not square."""
    from open_clip.model import get_model_preprocess_cfg

    found = get_model_preprocess_cfg(model)
    size = found["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1 or found["resize_mode"] not in ("shortest", "squash"):
        raise ConfigError(f"this CLIP preprocesses frames as {found}; only square images, resized or squashed, are supported")
    return FrameSettings(sides.pop(), tuple(found["mean"]), tuple(found["std"]), found["resize_mode"], found["interpolation"])


def preprocess_frames(
    frames: NDArray[np.uint8],
    size_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_mode: str = "shortest",
    interpolation: str = "bicubic",
) -> Tensor:
    """Frames u8 `(T, H, W, 3)` to a float32 tensor `(T, 3, S, S)`: open_clip's own transform, to the bit.

    Resize (shorter side to S, or both for "squash"), centre crop, mean and deviation. Pillow resizes, as it does there: torch's
    antialiased resize is off by one level in 255 at a few pixels, enough to turn a small model's embedding.
    """
    import torch

    height, width = frames.shape[1:3]
    short = min(height, width)
    target = (size_px, size_px) if resize_mode == "squash" else (size_px * height // short, size_px * width // short)
    top, left = (round((side - size_px) / 2.0) for side in target)
    method = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    resized = np.stack([np.asarray(Image.fromarray(frame).resize(target[::-1], method)) for frame in frames])
    pixels = torch.from_numpy(resized[:, top : top + size_px, left : left + size_px]).permute(0, 3, 1, 2).float().div_(255.0)
    centre, spread = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std))
    return pixels.sub_(centre).div_(spread).contiguous()


def load_clip(model: str = TINY, weights: str | None = None) -> nn.Module:
    """An open_clip model in eval mode, float32, on the CPU, its parameters frozen. Raises ModelUnavailable."""
    import open_clip
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = _find(model, weights)
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = open_clip.create_model(_register(files, model), load_weights=False, pretrained_text=False)
    if files.weights:
        try:
            module.load_state_dict(load_file(files.weights))
        except (RuntimeError, SafetensorError) as error:
            why = " ".join(str(error).split())[:160]
            raise ModelUnavailable(
                f"model {model!r}: {files.weights} does not hold its weights ({why}); name the configuration they belong to"
            ) from error
    return module.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip tells the root logger its every step, and warns of random weights before we have loaded ours."""

    def worth_saying(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO and "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(worth_saying)
    try:
        yield
    finally:
        root.removeFilter(worth_saying)


def clip_tokenizer(model: str = TINY, weights: str | None = None) -> Callable[[Sequence[str]], Tensor]:
    """Texts to token ids `(B, context length)` of this model. Raises ModelUnavailable."""
    import open_clip

    with _quiet():
        tokenizer: Callable[[Sequence[str]], Tensor] = open_clip.get_tokenizer(_register(_find(model, weights), model))
    return tokenizer


def class_texts(model: nn.Module, tokenizer: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> NDArray[np.float32]:
    """Normalised text embeddings `(C, D)`: `features @ class_texts(...).T` is the zero-shot score of each clip and class."""
    import torch

    with torch.inference_mode():
        embeddings = model.encode_text(tokenizer(list(texts)), normalize=True)  # type: ignore[operator]
        found: NDArray[np.float32] = embeddings.float().numpy()
        return found


def zero_shot(features: Floats, texts: NDArray[np.float32], scale: float = 100.0) -> NDArray[np.float32]:
    """Logits `(N, C)` of features `(N, D)` against class texts `(C, D)`: scaled cosine (Radford et al. 2021)."""
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return np.asarray(scale * (features / lengths) @ texts.T, np.float32)


def embedding_width(model: nn.Module) -> int:
    """Width D of the joint space."""
    import torch

    size = frame_settings(model).size_px
    weight = next(model.parameters())
    with torch.inference_mode():
        return int(model.encode_image(torch.zeros(1, 3, size, size, dtype=weight.dtype, device=weight.device)).shape[1])  # type: ignore[operator]


class _Files(NamedTuple):
    config: Path | None  # None: a configuration that open_clip ships
    weights: Path | None  # None: random


def _find(model: str, weights: str | None) -> _Files:
    """Which files a model is made of; nothing heavy is imported unless a tag must be looked up."""
    if weights is not None and weights != RANDOM and not weights.endswith(".safetensors"):
        model, weights = f"hf-hub:{_repository(model, weights)}", None
    if model.startswith("hf-hub:"):
        model = str(find_model(model.removeprefix("hf-hub:"), patterns=_HUB_FILES))
    path = Path(model).expanduser()
    config = _config_in(path) if path.is_dir() else path if path.is_file() else None
    if config is None and (model.startswith((".", "/", "~")) or model.endswith(".json")):
        raise ModelUnavailable(
            f"model {model!r}: nothing at {path.absolute()}; give a directory or JSON file with a configuration"
        )
    if weights == RANDOM:
        return _Files(config, None)
    found = Path(weights).expanduser() if weights else _beside(config) if config else None
    if found is None:
        raise ModelUnavailable(
            f"model {model!r}: no weights named; set weights to a safetensors file, a tag open_clip knows, or 'random' for timing"
        )
    if not found.is_file():
        raise ModelUnavailable(f"model {model!r}: no weights at {found.absolute()}; give a safetensors file")
    return _Files(config, found)


def _config_in(directory: Path) -> Path:
    own = directory / _CONFIG
    found = [own] if own.is_file() else sorted(directory.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ModelUnavailable(
            f"model {str(directory)!r}: needs one open_clip configuration there, found {names}; name the JSON file"
        )
    return found[0]


def _beside(config: Path) -> Path:
    return config.with_name("open_clip_model.safetensors" if config.name == _CONFIG else f"{config.stem}.safetensors")


def _repository(model: str, tag: str) -> str:
    """The hub repository behind a tag: configuration, preprocessing and weights together."""
    import open_clip

    known = open_clip.get_pretrained_cfg(model, tag) or {}
    repository = str(known.get("hf_hub", "")).strip("/")
    if repository.count("/") != 1:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ModelUnavailable(
            f"model {model!r}: {tag!r} is neither a safetensors file nor a tag with weights on the hub; open_clip knows {tags}"
        )
    return repository


def _register(files: _Files, model: str) -> str:
    """The name under which open_clip builds this model."""
    import open_clip

    if files.config is None:
        if model not in open_clip.list_models():
            raise ModelUnavailable(f"model {model!r}: open_clip does not know it; `open_clip.list_models()` has the names")
        return model
    if files.config.name == _CONFIG:
        return f"local-dir:{files.config.parent}"
    open_clip.add_model_config(files.config)
    return files.config.stem
