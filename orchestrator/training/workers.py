"""The workers that train one model together, as plain torch sees them: Ray Train, torchrun and a test set them up alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Workers:
    """This worker among those that tune one model together; more than one need an initialised `torch.distributed`."""

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> Workers:
        """As `torch.distributed` says; alone when it was never initialised."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else cls()

    def wait(self) -> None:
        """Until all workers are here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over workers, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor


ALONE = Workers()
