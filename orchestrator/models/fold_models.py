"""The K fold models of a tuning run on disk: what learnt, and who learnt from which clip. CLIP itself is only named.

<directory>/fold_0.safetensors ...   the tensors of `EmoVclip.tensors()`
            judged_0.safetensors ... what that model says of the clips it never saw, and what the frozen CLIP says of them
            folds.json               {digest of a clip: the fold that holds it out}
            recipe.json              scheme, class names, identity of the frozen CLIP, how it was trained; written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from orchestrator.errors import DamagedArtifact
from orchestrator.models.emovclip import EmoVclip
from orchestrator.models.prompts import PromptScheme
from orchestrator.seams import Json

FOLDS, RECIPE = "folds.json", "recipe.json"


@dataclass(frozen=True, slots=True)
class FoldModels:
    """A tuning run, read back.

    - `folds`: digest of a labelled clip to the fold whose model never saw its label.
    - `clip`: identity of the frozen CLIP the tensors belong to.
    """

    directory: Path
    scheme: PromptScheme
    names: tuple[str, ...]
    clip: Mapping[str, Json]
    folds: Mapping[str, int]
    count: int

    def tensors(self, fold: int) -> dict[str, Tensor]:
        """What one fold's model learnt. Raises DamagedArtifact."""
        return read_tensors(fold_file(self.directory, fold))

    def digest(self) -> str:
        """SHA-256 over the bytes of all files."""
        files = [self.directory / FOLDS, self.directory / RECIPE, *(fold_file(self.directory, f) for f in range(self.count))]
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def fold_file(directory: Path, fold: int) -> Path:
    """Where the tensors of a fold's model lie."""
    return directory / f"fold_{fold}.safetensors"


def judged_file(directory: Path, fold: int) -> Path:
    """Where a fold's held-out clips stand, in the order of their digests; see `read_judged`."""
    return directory / f"judged_{fold}.safetensors"


def read_judged(directory: Path, folds: int) -> dict[str, Tensor]:
    """All labelled clips, fold by fold, each judged by the model that never saw it.

    `labels` `(N,)`, `tuned` and `zero_shot` logits `(N, K)`, `frames` `(N,)` how many there are, `frame_logits` `(N, T, K)` and
    `attention` `(N, T)` with zeros behind them, `spread` `(N,)`: deviation over frames of the label's logit.
    """
    parts = [read_tensors(judged_file(directory, fold)) for fold in range(folds)]
    longest = max(part["attention"].shape[1] for part in parts)
    for part in parts:
        missing = longest - part["attention"].shape[1]
        part["attention"] = F.pad(part["attention"], (0, missing))
        part["frame_logits"] = F.pad(part["frame_logits"], (0, 0, 0, missing))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU. Raises DamagedArtifact."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedArtifact(f"{path} cannot be read: {error}. Delete its directory and tune again.") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meaning: Mapping[str, str] | None = None) -> None:
    """Whole or not at all: written beside, then renamed."""
    staged = path.with_name(f".{path.name}.part")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, staged, dict(meaning or {}))
    staged.rename(path)


def finish(
    directory: Path,
    *,
    scheme: PromptScheme,
    names: Sequence[str],
    clip: Mapping[str, Json],
    folds: Mapping[str, int],
    training: Mapping[str, Json],
) -> None:
    """Write what the fold files mean, when all of them are there."""
    count = max(folds.values()) + 1
    if missing := [f for f in range(count) if not fold_file(directory, f).exists()]:
        raise ValueError(f"{directory} lacks the models of folds {missing}: tune them before finishing")
    (directory / FOLDS).write_text(json.dumps(dict(sorted(folds.items())), indent=0) + "\n", encoding="utf-8")
    meaning = {"scheme": scheme.identity(), "names": list(names), "clip": clip, "folds": count, "training": training}
    staged = directory / f".{RECIPE}.part"
    staged.write_text(json.dumps(meaning, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    staged.rename(directory / RECIPE)


def read_fold_models(directory: Path) -> FoldModels:
    """A finished tuning run. Raises DamagedArtifact when it is not whole."""
    try:
        meaning: dict[str, Any] = json.loads((directory / RECIPE).read_text(encoding="utf-8"))
        folds = json.loads((directory / FOLDS).read_text(encoding="utf-8"))
        scheme = PromptScheme(**meaning["scheme"])
        return FoldModels(directory, scheme, tuple(meaning["names"]), meaning["clip"], folds, int(meaning["folds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedArtifact(f"{directory} holds no finished tuning run: {error}. Run the tuning job again.") from error


def install(model: EmoVclip, tensors: Mapping[str, Tensor]) -> None:
    """Put learnt tensors into a model. Raises DamagedArtifact naming those that are missing, unknown or of another shape."""
    own = model.tensors()
    wrong = sorted(set(own) ^ set(tensors)) + [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    if wrong:
        raise DamagedArtifact(f"these tensors do not fit the scheme: {', '.join(wrong)}. Tune again with this scheme.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
