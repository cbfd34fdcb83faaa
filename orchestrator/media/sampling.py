"""Which moments of a clip are looked at: by presentation time, so that frame rate, gaps and offsets do not shift them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class UniformFrames:
    """The middles of `count` equal segments (temporal segment networks, Wang et al. 2016, section 3.1, at test time)."""

    count: int = 8

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a clip needs at least one frame, got {self.count}")

    def times_s(self, duration_s: float) -> NDArray[np.float64]:
        """Times `(T,)` in [0, duration_s), increasing."""
        return np.asarray((np.arange(self.count) + 0.5) * (duration_s / self.count))


def nearest(frame_times_s: NDArray[np.float64], wanted_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the frame nearest in time to each wanted moment; `frame_times_s` `(F,)` increasing, F >= 1."""
    after = np.searchsorted(frame_times_s, wanted_s).clip(0, len(frame_times_s) - 1)
    before = (after - 1).clip(0)
    closer = np.abs(frame_times_s[before] - wanted_s) <= np.abs(frame_times_s[after] - wanted_s)
    return np.where(closer, before, after).astype(np.int64)
