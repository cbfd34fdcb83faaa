"""Where weights lie: a local directory or the Hugging Face hub, safetensors only, and what their bytes are.

    "clips/whisper"  ──► that directory
    "org/name"       ──► its snapshot in the hub cache, downloaded once; a cached model never asks the network again

No pickle is opened and no code of a model repository is run. What cannot be had raises ModelUnavailable, one line that names the
model, the place where it was looked for and the remedy, within a second when there is no network.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from orchestrator.errors import ModelUnavailable

Precision = Literal["auto", "float32", "float16", "bfloat16"]
TRANSFORMERS_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
_ELSEWHERE = ("*/*", "*.fp32*")  # ONNX exports and second copies of the same weights


def as_local(model: str) -> str:
    """An existing path made absolute, so that a worker with another working directory finds it; hub names stay as they are."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model


def find_model(model: str, revision: str | None = None, patterns: Sequence[str] = TRANSFORMERS_FILES) -> Path:
    """The local directory that holds a model's files. Raises ModelUnavailable when it has no safetensors."""
    path = Path(model).expanduser()
    if path.is_dir():
        return _with_weights(path, model)
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelUnavailable(
            f"model {model!r}: no such directory (looked at {path.absolute()}); give a directory with config.json and "
            "*.safetensors, or a hub name such as org/name"
        )
    return _from_hub(model, revision, patterns)


def _with_weights(directory: Path, model: str) -> Path:
    if not any(directory.glob("*.safetensors")):
        found = ", ".join(sorted(file.name for file in directory.iterdir())[:8]) or "nothing"
        raise ModelUnavailable(
            f"model {model!r}: no *.safetensors in {directory} (found {found}); pickled weights are not opened: convert them "
            "with save_pretrained on a machine that trusts them"
        )
    return directory


def _from_hub(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns), local_files_only=True))
        if any(cached.glob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable(constants.ENDPOINT)
    if offline:
        command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
        raise ModelUnavailable(
            f"model {model!r}: not in the hub cache {constants.HF_HUB_CACHE} and {offline}; run `{command}` where there is a "
            "network and copy the cache, or give a local directory"
        )
    try:
        directory = snapshot_download(model, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(_ELSEWHERE))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        raise ModelUnavailable(
            f"model {model!r}: {constants.ENDPOINT} did not give it ({why}); check the name, the revision and the access rights "
            "of your token"
        ) from error
    return _with_weights(Path(directory), model)


def _unreachable(endpoint: str) -> str:
    """Why the hub cannot be asked, "" when it can: its own client would retry for 23 seconds before saying so."""
    import httpx

    try:
        httpx.head(endpoint, timeout=3.0)
    except httpx.HTTPError as error:
        return f"{endpoint} cannot be reached ({error})"
    return ""


def digest_of_directory(directory: Path, patterns: Sequence[str] = TRANSFORMERS_FILES) -> str:
    """SHA-256 over names and bytes of a model's files: equal for a hub snapshot and a copy of it."""
    files = sorted(file for file in directory.iterdir() if any(fnmatch(file.name, pattern) for pattern in patterns))
    return digest_of({file.name: digest_of_file(file) for file in files})


def digest_of(names_and_digests: Mapping[str, str]) -> str:
    """SHA-256 of a mapping, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(dict(names_and_digests), sort_keys=True).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes; read once a process as long as size and time stay."""
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.cache
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    if path.parent.name == "blobs" and len(path.name) == 64:
        return path.name  # the hub cache names large files by their SHA-256
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
