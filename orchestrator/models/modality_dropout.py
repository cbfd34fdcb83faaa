"""Modality dropout: while training, hide whole modalities of some samples, so that no head leans on one of them alone.

What comes out is a presence mask, the same thing that says which clips truly lack a modality: heads know one path for both.

    present (B, M)  ──►  keep (J, B, M)     each of J ensemble members draws its own; streams of a modality fall together

At least one modality that a clip has is always kept. Nothing is dropped at inference: nobody calls this then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from orchestrator.vocabulary import MODALITIES, modality_of


@dataclass(frozen=True, slots=True)
class ModalityDropout:
    """How often a modality is hidden.

    - `mode`: "independent" hides each modality with its own rate, and brings one back, chosen evenly, when all would be hidden:
      a modality of three with equal rates p stays in a share 1 - p + p**3 / 3. "one_of" hides at most one, never the only one.
    - `rate`: for every modality, or by modality (0 where unnamed). "one_of": chance that any is hidden, shared out evenly, or the
      chance of each.
    """

    mode: Literal["independent", "one_of"] = "independent"
    rate: float | Mapping[str, float] = 0.2

    def __post_init__(self) -> None:
        if self.mode not in ("independent", "one_of"):
            raise ValueError(f"modality_dropout.mode must be 'independent' or 'one_of', got {self.mode!r}")
        rates = dict(self.rate) if isinstance(self.rate, Mapping) else {"all": self.rate}
        if isinstance(self.rate, Mapping):
            object.__setattr__(self, "rate", rates)
            if unknown := set(rates) - set(MODALITIES):
                raise ValueError(f"modality_dropout.rate names {sorted(unknown)}; known are {', '.join(MODALITIES)}")
        if not all(0 <= rate <= 1 for rate in rates.values()):
            raise ValueError(f"modality_dropout.rate must be in [0, 1], got {rates}")
        if self.mode == "one_of" and sum(rates.values()) > 1:
            raise ValueError(f"modality_dropout.rate by modality adds up to {sum(rates.values()):g}; 'one_of' needs at most 1")

    def rates(self, modalities: Sequence[str]) -> list[float]:
        """Rate of each modality."""
        if isinstance(self.rate, Mapping):
            return [self.rate.get(modality, 0.0) for modality in modalities]
        share = self.rate / len(modalities) if self.mode == "one_of" else self.rate
        return [share] * len(modalities)

    def keep(self, present: Tensor, streams: Sequence[str], members: int) -> Tensor:
        """What the members see of B clips: bool `(J, B, M)` within `present` `(B, M)`, one column a stream.

        Draws from torch's global generator.
        """
        modalities = [modality for modality in MODALITIES if any(modality_of(stream) == modality for stream in streams)]
        column = [modalities.index(modality_of(stream)) for stream in streams]
        there = torch.stack(  # (B, m): the modalities a clip has
            [present[:, [c == index for c in column]].any(dim=1) for index in range(len(modalities))], dim=1
        )
        rates = torch.tensor(self.rates(modalities), device=present.device)  # (m,)
        kept = self._kept(there, rates, members)
        return present & kept[..., column]

    def _kept(self, there: Tensor, rates: Tensor, members: int) -> Tensor:
        shape = (members, *there.shape)
        if self.mode == "one_of":
            chance = torch.rand(*shape[:2], 1, device=there.device)
            high = rates.cumsum(dim=0)
            hidden = (chance >= high - rates) & (chance < high)
            return ~hidden | (there.sum(dim=1, keepdim=True) < 2)
        draw = torch.rand(shape, device=there.device)
        kept = (draw >= rates) & there
        rescued = torch.rand(shape, device=there.device).masked_fill(~there, -1.0).argmax(dim=-1, keepdim=True)
        rescue = torch.zeros(shape, dtype=torch.bool, device=there.device).scatter_(-1, rescued, True)
        return kept | (rescue & ~kept.any(dim=-1, keepdim=True))
