"""Clips as the prompted blocks read them: tokens from below layer k, made anew each epoch or read from a cache.

    frames u8 (T, H, W, 3) ─► another look ─► preprocessing ─► trunk ─► tokens (T, N + 1, C)

`LiveTokens` does this every time. `CachedTokens` has done it once for a fixed number of looks, in half precision: nothing below k
learns, so all folds and epochs share what is stored. Look 0 is the plain clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.encoders.clip import frame_settings, preprocess_frames
from orchestrator.errors import DamagedArtifact
from orchestrator.models.emovclip import EmoVclip, pad_clips
from orchestrator.training.augmentation import Augmentation

Frames = NDArray[np.uint8]
PLAIN = -1  # the epoch of a clip that is judged, not learnt from


class Tokens(Protocol):
    """Tokens `(B, T, N + 1, C)` of clips as an epoch sees them, and which frames are there, `(B, T)`; None when all are."""

    def __call__(self, clips: Sequence[int], epoch: int) -> tuple[Tensor, Tensor | None]: ...


class LiveTokens:
    """Decoded frames through augmentation and trunk at every call."""

    def __init__(self, model: EmoVclip, frames: Sequence[Frames], augmentation: Augmentation | None, *, seed: int) -> None:
        self._model, self._frames, self._augmentation, self._seed = model, frames, augmentation, seed
        self._settings = frame_settings(model.clip)

    def __call__(self, clips: Sequence[int], epoch: int) -> tuple[Tensor, Tensor | None]:
        pixels, mask = pad_clips([self._look(clip, epoch) for clip in clips])
        device = self._model.logit_scale.device
        return self._model.trunk(pixels.to(device)), None if mask is None else mask.to(device)

    def _look(self, clip: int, epoch: int) -> Tensor:
        frames = self._frames[clip]
        if self._augmentation is not None and epoch != PLAIN:
            frames = self._augmentation(frames, seed=look_seed(self._seed, epoch, clip))
        return preprocess_frames(frames, *self._settings)


class CachedTokens:
    """Stored tokens; epoch e reads look e modulo their number, so that augmentation costs nothing either."""

    def __init__(self, stored: Sequence[Sequence[NDArray[np.generic]]], device: torch.device) -> None:
        self._stored, self._device = stored, device

    def __call__(self, clips: Sequence[int], epoch: int) -> tuple[Tensor, Tensor | None]:
        look = 0 if epoch == PLAIN else epoch % len(self._stored)
        rows = [torch.from_numpy(np.asarray(self._stored[look][clip], np.float32)) for clip in clips]
        tokens, mask = pad_clips(rows)
        return tokens.to(self._device), None if mask is None else mask.to(self._device)


def look_seed(seed: int, epoch: int, clip: int) -> int:
    """One number for one look at one clip."""
    return int(np.random.SeedSequence((seed, epoch, clip)).generate_state(1, np.uint64)[0] >> 1)


class StoredArrays(Sequence[NDArray[Any]]):
    """One `.npy` a clip, opened as a memory map when it is read: frames of labelled clips, or tokens of one look at them."""

    def __init__(self, directory: Path, keys: Sequence[str]) -> None:
        self._paths = [directory / f"{key}.npy" for key in keys]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        try:
            return np.load(self._paths[index], mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DamagedArtifact(f"{self._paths[index]} cannot be read: {error}. Delete it and run again.") from error


def store_array(directory: Path, key: str, array: NDArray[np.generic]) -> None:
    """Write one clip's array unless it is there; whole or not at all."""
    path = directory / f"{key}.npy"
    if not path.exists():
        staged = directory / f".{key}.part.npy"
        directory.mkdir(parents=True, exist_ok=True)
        np.save(staged, array, allow_pickle=False)
        staged.rename(path)


def cache_trunk(
    model: EmoVclip,
    frames: Sequence[Frames],
    keys: Sequence[str],
    directory: Path,
    *,
    augmentation: Augmentation | None,
    looks: int,
    seed: int,
    share: tuple[int, int] = (0, 1),
) -> list[StoredArrays]:
    """Store the tokens of every clip and look that is missing, half precision; `share` is (rank, workers).

    A look hangs on the clip's place and the seed, so `keys` must name clips in the same order each time.
    """
    stored = [StoredArrays(directory / f"look_{look}", keys) for look in range(looks)]
    live = LiveTokens(model, frames, augmentation, seed=seed)
    for look in range(looks):
        for clip in range(share[0], len(keys), share[1]):
            if not (directory / f"look_{look}" / f"{keys[clip]}.npy").exists():
                tokens, _ = live([clip], look - 1)  # look 0 is the plain clip
                store_array(directory / f"look_{look}", keys[clip], tokens[0].half().cpu().numpy())
    return stored
