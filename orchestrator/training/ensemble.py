"""An ensemble of fusion heads, K folds times several seeds, trained together and asked together.

Members are numbered j = seed * F + fold. All folds of one seed are a group: they share minibatches, feature noise and one
matrix product a layer, and differ in what weight 0 hides from them. A group is always trained whole, so a member comes out the
same whichever worker trains it and whatever else is trained.

    fit_members(recipe, bases, rows, targets (F, N, C), weights (F, N))  ──►  Ensemble  ──►  logits (J, N, C)  ──►  average (N, C)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.models.fusion import AttentionFusion, Concatenation, GatedExperts, Head, Linear, MerToolsAttention
from orchestrator.models.modality_dropout import ModalityDropout
from orchestrator.seams import Json
from orchestrator.training.checkpoints import load_weights, save_weights
from orchestrator.training.columns import Basis, Columns
from orchestrator.training.loop import OnEpoch, fit_group
from orchestrator.vocabulary import Features, Ints, modality_subsets

ROWS = 8192  # clips asked at once
HEADS: dict[str, type[Head]] = {
    head.__name__: head for head in (AttentionFusion, Concatenation, GatedExperts, MerToolsAttention, Linear)
}


@dataclass(frozen=True, slots=True)
class FusionRecipe:
    """How a fusion ensemble is trained.

    - `seeds`: members per fold. `components`: principal components kept of each stream.
    - `relevance`: streams are read as loudly as they tell of the label (`relevance.loudness`), not all alike.
    - `epochs`: passes over the rows, but never fewer than `min_steps` nor more than `max_steps` minibatches.
    - `lr` falls along a cosine to 0; `weight_decay` is decoupled (AdamW).
    - `feature_mask`: share of feature coordinates hidden, `feature_noise`: deviation of Gaussian noise on standardised features.
    - `mixup`: alpha of the Beta distribution that mixes pairs of samples; 0 is off.
    - `consistency`: weight of the FixMatch term of the students of a round on unlabelled clips, surer than
      `consistency_threshold`; 0 is off.
    - `class_balance`: "weights" gives classes equal weight, "oversample" draws them equally often.
    """

    head: Head = field(default_factory=AttentionFusion)
    modality_dropout: ModalityDropout = field(default_factory=ModalityDropout)
    seeds: int = 1
    components: int = 64
    relevance: bool = True
    epochs: int = 30
    min_steps: int = 200
    max_steps: int = 3000
    batch_size: int = 128
    lr: float = 5e-3
    weight_decay: float = 0.5
    label_smoothing: float = 0.0
    mixup: float = 0.0
    feature_mask: float = 0.0
    feature_noise: float = 0.0
    consistency: float = 1.0
    consistency_threshold: float = 0.0
    class_balance: Literal["none", "weights", "oversample"] = "none"

    def __post_init__(self) -> None:
        for name in ("seeds", "components", "epochs", "max_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"fusion.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("min_steps", "weight_decay", "mixup", "feature_noise", "consistency"):
            if getattr(self, name) < 0:
                raise ValueError(f"fusion.{name} must not be negative, got {getattr(self, name)}")
        for name in ("label_smoothing", "feature_mask", "consistency_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"fusion.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.lr <= 0:
            raise ValueError(f"fusion.lr must be positive, got {self.lr}")
        if self.class_balance not in ("none", "weights", "oversample"):
            raise ValueError(f"fusion.class_balance must be 'none', 'weights' or 'oversample', got {self.class_balance!r}")

    def identity(self) -> dict[str, Json]:
        """All that can change a weight, as JSON."""
        return asdict(self) | {"head": {"kind": type(self.head).__name__, **asdict(self.head)}}

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> FusionRecipe:
        """The recipe whose `identity` this is."""
        head = dict(identity["head"])
        kind = HEADS[head.pop("kind")]
        return cls(**dict(identity) | {"head": kind(**head), "modality_dropout": ModalityDropout(**identity["modality_dropout"])})


def member_groups(recipe: FusionRecipe, folds: int) -> list[list[int]]:
    """Members that are trained together, `folds` at a time; any worker may train any group."""
    return [list(range(seed * folds, (seed + 1) * folds)) for seed in range(recipe.seeds)]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """J trained heads.

    - `members`: (fold, seed) of each. `weights`: the head's parameters, members along the first axis.
    """

    recipe: FusionRecipe
    members: tuple[tuple[int, int], ...]
    classes: int
    bases: Mapping[str, Basis]
    weights: Mapping[str, Tensor]

    def read(self, features: Features) -> Columns:
        """Features as the members read them; do it once and ask as often as you like."""
        return Columns.of(features, self.bases)

    def logits(self, columns: Columns) -> NDArray[np.float32]:
        """What every member says of every clip, `(J, N, C)`."""
        head = self.head()
        device = next(head.parameters()).device
        told = np.empty((len(self.members), len(columns), self.classes), np.float32)
        with torch.inference_mode():
            for start in range(0, len(columns), ROWS):
                part = columns.rows(slice(start, start + ROWS)).to(device)
                told[:, start : start + ROWS] = head(part.values, part.present).cpu().numpy()
        return told

    def head(self) -> nn.Module:
        """The module, ready to be asked."""
        dims = {stream: basis.width for stream, basis in self.bases.items()}
        head = self.recipe.head.build(dims, self.classes, len(self.members))
        head.load_state_dict(dict(self.weights))
        return head.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def average(self, logits: NDArray[np.float32], folds: Ints) -> NDArray[np.float32]:
        """Mean `(N, C)` of logits `(J, N, C)`: a clip of fold f >= 0 is judged by the members of that fold, which never saw it,
        a clip of fold -1 by all. Raises ValueError for a fold without members."""
        owners = np.array([fold for fold, _ in self.members])
        mean: NDArray[np.float32] = logits.mean(axis=0)
        for fold in np.unique(folds[folds >= 0]):
            if not (owners == fold).any():
                raise ValueError(
                    f"no member was trained without fold {fold}; the ensemble has folds {sorted(set(owners.tolist()))}"
                )
            mean[folds == fold] = logits[owners == fold][:, folds == fold].mean(axis=0)
        return mean

    def of_fold(self, fold: int) -> Ensemble:
        """The members of one fold."""
        chosen = [index for index, (owner, _) in enumerate(self.members) if owner == fold]
        if not chosen:
            raise ValueError(f"no member of fold {fold}; there are {sorted({owner for owner, _ in self.members})}")
        weights = {name: tensor[chosen] for name, tensor in self.weights.items()}
        return replace(self, members=tuple(self.members[index] for index in chosen), weights=weights)

    def renumbered(self) -> Ensemble:
        """The same members under seeds that the recipe did not use, to be merged with others of it."""
        return replace(self, members=tuple((fold, seed + self.recipe.seeds) for fold, seed in self.members))

    @staticmethod
    def merge(parts: Sequence[Ensemble]) -> Ensemble:
        """One ensemble of all members, sorted by (seed, fold). Raises ValueError when the parts do not belong together."""
        first = parts[0]
        members = [member for part in parts for member in part.members]
        if any(part.recipe != first.recipe or part.classes != first.classes for part in parts) or len(set(members)) < len(
            members
        ):
            raise ValueError("only different members of one recipe, trained on the same clips, can be merged")
        order = sorted(range(len(members)), key=lambda index: members[index][::-1])
        weights = {name: torch.cat([part.weights[name] for part in parts])[order] for name in first.weights}
        return replace(first, members=tuple(members[index] for index in order), weights=weights)

    def save(self, directory: Path) -> None:
        """Safetensors and JSON."""
        tensors = {f"head.{name}": tensor for name, tensor in self.weights.items()}
        for stream, basis in self.bases.items():
            tensors |= {f"{part}.{stream}": getattr(basis, part) for part in ("mean", "inverse", "axes")}
        meaning: dict[str, Json] = {
            "recipe": self.recipe.identity(),
            "members": self.members,
            "classes": self.classes,
            "streams": list(self.bases),
        }
        save_weights(directory, tensors, meaning)

    @classmethod
    def load(cls, directory: Path) -> Ensemble:
        """Raises DamagedArtifact when the files cannot be read."""
        tensors, meaning = load_weights(directory)
        read = {
            stream: Basis(*(tensors[f"{part}.{stream}"] for part in ("mean", "inverse", "axes"))) for stream in meaning["streams"]
        }
        weights = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
        members = tuple((fold, seed) for fold, seed in meaning["members"])
        return cls(FusionRecipe.from_identity(meaning["recipe"]), members, meaning["classes"], read, weights)


def subset_logits(ensemble: Ensemble, features: Features, folds: Ints) -> dict[str, NDArray[np.float32]]:
    """Averaged logits `(N, C)` by modality subset: A, V, T, AV, AT, VT, AVT. `folds` as in `Ensemble.average`."""
    columns = ensemble.read(features)
    return {
        name: ensemble.average(ensemble.logits(columns.only(modalities)), folds)
        for name, modalities in modality_subsets(features.modalities).items()
    }


def fit_members(
    recipe: FusionRecipe,
    read: Mapping[str, Basis],
    labelled: Columns,
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    *,
    seed: int,
    members: Sequence[int] | None = None,
    unlabelled: Columns | None = None,
    on_epoch: OnEpoch | None = None,
) -> Ensemble:
    """Train members (all of them, or whole groups of `member_groups`) on N rows.

    - `read`: the bases the columns were read through; the ensemble keeps them.
    - `targets` `(F, N, C)`, rows sum to 1; `weights` `(F, N)`: what fold f's members learn; weight 0 hides a row from them.
    - `unlabelled`: clips for the consistency term.
    - `on_epoch(epoch, loss)`: called after each epoch, counted through all groups.

    The same seed gives the same bytes, on the same number of threads. Raises ValueError for shapes that do not fit or a part of
    a group, Diverged when a loss is not finite.
    """
    folds = len(targets)
    groups = member_groups(recipe, folds)
    wanted = set(range(folds * recipe.seeds) if members is None else members)
    chosen = [index for index, group in enumerate(groups) if wanted >= set(group)]
    if not chosen or wanted != {member for index in chosen for member in groups[index]}:
        raise ValueError(f"members {sorted(wanted)} are not whole groups of {groups}")
    _check_rows(labelled, targets, weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    labelled, told, loud = labelled.to(device), torch.from_numpy(targets).to(device), torch.from_numpy(weights).to(device)
    pool = None if unlabelled is None or not recipe.consistency else unlabelled.to(device)
    widths = {stream: basis.width for stream, basis in read.items()}
    epochs = count()
    parts = []
    for index in chosen:
        with _chance(seed, index):
            head = recipe.head.build(widths, targets.shape[2], folds).to(device)
            fit_group(
                recipe,
                head,
                labelled,
                told,
                loud,
                unlabelled=pool,
                on_epoch=lambda _, loss: None if on_epoch is None else on_epoch(next(epochs), loss),
            )
        state = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
        parts.append(Ensemble(recipe, tuple((fold, index) for fold in range(folds)), targets.shape[2], read, state))
    return Ensemble.merge(parts)


@contextmanager
def _chance(seed: int, part: int) -> Iterator[None]:
    """Torch's global generators, seeded for one part of a fit and put back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, part]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def _check_rows(columns: Columns, targets: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    if targets.ndim != 3 or targets.shape[:2] != weights.shape or targets.shape[1] != len(columns):
        raise ValueError(
            f"targets (F, N, C) and weights (F, N) must belong to {len(columns)} clips, got {targets.shape} and {weights.shape}"
        )
    if not (weights >= 0).all() or not (weights > 0).any(axis=1).all():
        raise ValueError(
            "weights must not be negative, and every fold needs a row to learn from; use fewer folds or label more clips"
        )
