"""Where a model runs and how much at once.

On a CPU each clip has a forward pass of its own, so that its features do not depend on its neighbours to the bit, and padding
costs nothing. On a GPU clips share batches of like lengths; a batch that does not fit is halved, and the size is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from orchestrator.encoders.weights import Precision

Item = TypeVar("Item")
Row = TypeVar("Row")


def best_device() -> torch.device:
    """The GPU this worker was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """ "auto" is half precision on a GPU and single on a CPU, where half is slower."""
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[precision]


class Batches:
    """Runs items through a model in batches of at most `size` and owns that size: running out of memory halves it for good."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(
        self,
        items: Sequence[Item],
        forward: Callable[[Sequence[Item]], Sequence[Row]],
        length: Callable[[Item], int],
        *,
        mixed: bool = True,
    ) -> list[Row]:
        """One row an item, in the order of `items`; the longest go first, so that memory runs out early or never.

        `mixed` False lets only items of equal length share a batch, for models that padding would change.
        """
        lengths = [length(item) for item in items]
        waiting = sorted(range(len(items)), key=lambda i: -lengths[i])
        rows: dict[int, Row] = {}
        while waiting:
            batch = [i for i in waiting[: self.size] if mixed or lengths[i] == lengths[waiting[0]]]
            try:
                made = forward([items[i] for i in batch])
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.size = len(batch) // 2
                torch.cuda.empty_cache()
                continue
            rows.update(zip(batch, made, strict=True))
            waiting = waiting[len(batch) :]
        return [rows[i] for i in range(len(items))]


def batches_for(device: torch.device, on_gpu: int) -> Batches:
    """One clip at a time on a CPU, up to `on_gpu` on a GPU."""
    return Batches(on_gpu if device.type == "cuda" else 1)
