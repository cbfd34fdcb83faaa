"""Video features of tuned prompts, without a leak.

A model that learnt a clip's label gives that clip a feature in which the label is written. So a clip that was tuned on (its
digest stands in the checkpoint's folds) is encoded by the one fold model that never saw it, every other clip by the mean of all
fold models. They share the frozen projection and their first weights, which keeps their spaces comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.encoders.clip import OpenClip, clip_tokenizer, frame_settings, load_clip, preprocess_frames
from orchestrator.encoders.rows import encoded
from orchestrator.errors import ConfigError, DamagedArtifact
from orchestrator.seams import EncoderRecipe, Json
from orchestrator.vocabulary import DecodedClip, Encoded, modality_of

if TYPE_CHECKING:
    from orchestrator.models.emovclip import Seen

_CLIPS_ON_GPU = 16


@dataclass(frozen=True, slots=True)
class TunedClip:
    """Recipe of a tuned image tower.

    - `checkpoint`: directory of a finished tuning run. `base`: the frozen CLIP it was tuned on.
    - `values`: what becomes the feature: the `embedding` behind the projection `(E,)`, `hidden` before it `(C,)`, or
      `embedding+logits` `(E + K,)`.
    - `in_fold`: encode clips with all fold models even if some learnt their labels. Only to show how large the leak is:
      `refuse_in_fold` keeps it from fusion.
    """

    checkpoint: str
    base: OpenClip = field(default_factory=OpenClip)
    stream: str = "video"
    values: Literal["embedding", "hidden", "embedding+logits"] = "embedding"
    in_fold: bool = False

    def __post_init__(self) -> None:
        if modality_of(self.stream) != "video":
            raise ConfigError(f"TunedClip reads frames: its stream is 'video' or 'video.<name>', got {self.stream!r}")
        if self.values not in ("embedding", "hidden", "embedding+logits"):
            raise ConfigError(f"TunedClip.values must be embedding, hidden or embedding+logits, got {self.values!r}")
        object.__setattr__(self, "checkpoint", str(Path(self.checkpoint).expanduser().resolve()))

    @property
    def reads(self) -> str:
        return "video"

    def identity(self) -> Mapping[str, Json]:
        """Raises DamagedArtifact for a checkpoint that is not whole or was tuned on another CLIP."""
        from orchestrator.models.fold_models import read_fold_models

        found = read_fold_models(Path(self.checkpoint))
        base = frozen_identity(self.base)
        if dict(found.clip) != base:
            raise DamagedArtifact(
                f"{self.checkpoint} was tuned on {found.clip}, but the encoder names {base}: give the CLIP it was tuned on"
            )
        return {
            "encoder": "tuned_clip",
            "version": 1,
            "base": self.base.identity(),
            "checkpoint": found.digest(),
            "values": self.values,
            "in_fold": self.in_fold,
        }

    def load(self) -> TunedEncoder:
        """Raises ModelUnavailable, DamagedArtifact."""
        return TunedEncoder(self)


def refuse_in_fold(recipes: Sequence[EncoderRecipe]) -> None:
    """Raises ConfigError when a stream would be made by models that learnt the labels of the clips they encode."""
    if leaky := [recipe.stream for recipe in recipes if isinstance(recipe, TunedClip) and recipe.in_fold]:
        raise ConfigError(
            f"{', '.join(leaky)}: in_fold=true gives a labelled clip a feature by models that learnt its label, so the label is "
            "in the feature; fusion would trust it, look good out of fold and fail on new clips. Leave in_fold out, or say "
            "data.in_fold=true to see it happen"
        )


def frozen_identity(base: OpenClip) -> Mapping[str, Json]:
    """What of a CLIP prompts hang on: its architecture and its weights; a tuning run records it. Raises ModelUnavailable."""
    told = base.identity()
    return {key: told[key] for key in ("architecture", "weights")}


class TunedEncoder:
    """All fold models of a tuning run around one frozen CLIP."""

    def __init__(self, recipe: TunedClip) -> None:
        import torch

        from orchestrator.encoders.devices import batches_for, best_device, dtype_of
        from orchestrator.models.emovclip import EmoVclip
        from orchestrator.models.fold_models import install, read_fold_models

        found = read_fold_models(Path(recipe.checkpoint))
        device = best_device()
        clip = load_clip(recipe.base.model, recipe.base.weights).to(device)
        tokenize = clip_tokenizer(recipe.base.model, recipe.base.weights)
        self._recipe, self._folds = recipe, found.folds
        self._models = [EmoVclip(clip, tokenize, found.scheme, found.names, seed=0).eval() for _ in range(found.count)]
        for fold, model in enumerate(self._models):
            install(model, found.tensors(fold))
        with torch.inference_mode():
            self._classes = [model.classes() for model in self._models]
        self._device, self._dtype = device, dtype_of(recipe.base.precision, device)
        self._settings = frame_settings(clip)
        self._batches = batches_for(device, _CLIPS_ON_GPU)
        extra = len(found.names) if recipe.values == "embedding+logits" else 0
        tower = self._models[0].tower
        self.width = (tower.conv1.out_channels if recipe.values == "hidden" else tower.proj.shape[1]) + extra

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        """One row a clip, `(B, D)`; a clip without frames is absent."""
        seen = [clip for clip in clips if len(clip.frames)]
        rows = [self._value(looked) for looked in self._batches.run(seen, self.look, length=lambda clip: len(clip.frames))]
        return encoded(self._recipe.stream, clips, [rows.pop(0) if len(clip.frames) else None for clip in clips], self.width)

    def look(self, clips: Sequence[DecodedClip]) -> list[Look]:
        """What the models that may speak of each clip see in it, on average; every clip must have frames."""
        import torch

        from orchestrator.models.emovclip import pad_clips

        autocast = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.inference_mode(), autocast:
            pixels, mask = pad_clips([preprocess_frames(clip.frames, *self._settings) for clip in clips])
            tokens = self._models[0].trunk(pixels.to(self._device))
            heard: list[list[Look]] = [[] for _ in clips]
            for fold, (model, classes) in enumerate(zip(self._models, self._classes, strict=True)):
                mine = [i for i, clip in enumerate(clips) if fold in self.speakers(clip.digest)]
                if mine:
                    seen = model(tokens[mine], classes, None if mask is None else mask[mine].to(self._device))
                    for row, i in enumerate(mine):
                        heard[i].append(_look(seen, row, len(clips[i].frames)))
        return [Look(*(np.mean(part, axis=0) for part in zip(*looks, strict=True))) for looks in heard]

    def speakers(self, digest: str) -> list[int]:
        """Which fold models may speak of a clip: the one that never learnt from it, or all. Raises ValueError for no digest."""
        if not digest and not self._recipe.in_fold:
            raise ValueError("a clip without a digest cannot be told from those the prompts were tuned on: use media.digests")
        held_out = None if self._recipe.in_fold else self._folds.get(digest)
        return list(range(len(self._models))) if held_out is None else [held_out]

    def _value(self, look: Look) -> NDArray[np.float32]:
        if self._recipe.values == "hidden":
            return look.hidden
        return look.embedding if self._recipe.values == "embedding" else np.concatenate([look.embedding, look.logits])


class Look(NamedTuple):
    """One clip: `hidden` `(C,)`, `embedding` `(E,)`, `logits` `(K,)`; `frame_logits` `(T, K)`, `attention` `(T,)` by frame."""

    hidden: NDArray[np.float32]
    embedding: NDArray[np.float32]
    logits: NDArray[np.float32]
    frame_logits: NDArray[np.float32]
    attention: NDArray[np.float32]


def _look(seen: Seen, row: int, frames: int) -> Look:
    whole = (part[row].float().cpu().numpy() for part in (seen.hidden, seen.embedding, seen.logits))
    return Look(*whole, *(part[row, :frames].float().cpu().numpy() for part in (seen.frame_logits, seen.attention)))
