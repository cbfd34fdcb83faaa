"""Another look at the same clip: every frame is cropped, flipped and recoloured alike, so that what moves still moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Augmentation:
    """RandAugment (Cubuk et al. 2020) after a random crop and a mirror, drawn once a clip.

    - `operations` of RandAugment at `magnitude` of 30; 0 operations leaves colours and angles alone.
    - `min_area`: the smallest crop, as a share of the picture; 1 leaves it whole.
    """

    operations: int = 2
    magnitude: int = 7
    min_area: float = 0.7
    mirror: bool = True

    def __post_init__(self) -> None:
        if self.operations < 0 or not 0 <= self.magnitude <= 30:
            raise ValueError(f"augmentation needs operations >= 0 and a magnitude in 0..30, got {self}")
        if not 0 < self.min_area <= 1:
            raise ValueError(f"augmentation.min_area is a share in (0, 1], got {self.min_area}")

    def __call__(self, frames: NDArray[np.uint8], *, seed: int) -> NDArray[np.uint8]:
        """Frames u8 `(T, H, W, 3)` to the same shape; equal seeds, equal pictures."""
        from torchvision.transforms import v2  # takes a second to import, and only prompts look twice

        height, width = frames.shape[1:3]
        steps: list[v2.Transform] = []
        if self.min_area < 1:
            steps.append(v2.RandomResizedCrop((height, width), scale=(self.min_area, 1.0), ratio=(0.9, 1.1), antialias=True))
        if self.mirror:
            steps.append(v2.RandomHorizontalFlip())
        if self.operations:
            steps.append(v2.RandAugment(self.operations, self.magnitude))
        if not steps:
            return frames
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels: torch.Tensor = v2.Compose(steps)(torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2))
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()
