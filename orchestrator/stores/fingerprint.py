"""Identity: equal content, equal name. Every stored thing goes by the fingerprint of all that can change its bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.seams import Json


def fingerprint(*parts: Json) -> str:
    """16 hex digits of the parts' canonical JSON, keys sorted. Raises ValueError for NaN, TypeError for what is not JSON."""
    text = json.dumps([_canonical(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identity_of(settings: object) -> Json:
    """A frozen dataclass of settings as JSON: its class and its fields, nested ones included."""
    if is_dataclass(settings) and not isinstance(settings, type):
        told: dict[str, Json] = {field.name: identity_of(getattr(settings, field.name)) for field in fields(settings)}
        return {"class": f"{type(settings).__module__}.{type(settings).__qualname__}", **told}
    if isinstance(settings, Mapping):
        return {str(key): identity_of(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [identity_of(value) for value in settings]
    return _canonical(settings)


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(directory: str | Path) -> str:
    """SHA-256 of a directory: the relative names and the bytes of all its files, links followed."""
    root = Path(directory)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a directory")
    files = sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file())
    return hashlib.sha256(json.dumps([[name, file_digest(path)] for name, path in files]).encode()).hexdigest()


def array_digest(*arrays: NDArray[np.generic]) -> str:
    """16 hex digits of arrays' types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _canonical(part: object) -> Json:
    if part is None or isinstance(part, str | bool | int):
        return part
    if isinstance(part, float):
        if not math.isfinite(part):
            raise ValueError(f"a fingerprint cannot hold {part}: it equals nothing, not even itself")
        return part
    if isinstance(part, Mapping):
        if wrong := [key for key in part if not isinstance(key, str)]:
            raise TypeError(f"keys of a fingerprint are strings, got {wrong[0]!r}: 1 and '1' would become one key")
        return {key: _canonical(value) for key, value in part.items()}
    if isinstance(part, Sequence) and not isinstance(part, bytes | bytearray | memoryview):
        return [_canonical(value) for value in part]
    raise TypeError(f"a fingerprint is made of JSON, got {type(part).__name__} {part!r}")
