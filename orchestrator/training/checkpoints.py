"""Weights on disk: safetensors for numbers, JSON for what they mean. Nothing that could run code is ever read.

    <directory>/weights.safetensors   <directory>/model.json

The caller names a fresh directory and makes it visible by renaming it (`stores.artifacts` does); here files are only written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from orchestrator.errors import DamagedArtifact
from orchestrator.seams import Json

WEIGHTS, MEANING = "weights.safetensors", "model.json"


def save_weights(directory: Path, weights: Mapping[str, Tensor], meaning: Mapping[str, Json]) -> None:
    """Write both files into `directory`, which is made when it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, directory / WEIGHTS)
    (directory / MEANING).write_text(json.dumps(meaning, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_weights(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and their meaning. Raises DamagedArtifact when a file is missing or cannot be read."""
    try:
        return load_file(directory / WEIGHTS), json.loads((directory / MEANING).read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedArtifact(f"{directory} holds no readable checkpoint: {error}. Delete it and run again.") from error
