"""Finished steps on disk: a directory whose `record.json` says it is whole.

    <root>/<kind>/.<fingerprint>-<random>/   while it is written
    <root>/<kind>/<fingerprint>/             after one rename; record.json holds the SHA-256 of every file

A step whose directory exists is skipped: this one rule gives caching, resume and sharing between runs. Two writers never mix: the
first rename wins and the second writer's copy is dropped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

from orchestrator.errors import DamagedArtifact
from orchestrator.seams import Json
from orchestrator.stores.fingerprint import file_digest

RECORD = "record.json"


class ArtifactStore:
    """Artifacts below one directory, by kind and fingerprint."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def find(self, kind: str, fingerprint: str) -> Path | None:
        """Directory of a finished artifact, None when there is none."""
        directory = self.root / kind / fingerprint
        return directory if (directory / RECORD).is_file() else None

    @contextmanager
    def write(self, kind: str, fingerprint: str, record: Mapping[str, Json]) -> Iterator[Path]:
        """A directory to fill; committed when the block ends well, gone when it raises."""
        target = self.root / kind / fingerprint
        staged = target.with_name(f".{fingerprint}-{uuid4().hex[:8]}")
        staged.mkdir(parents=True)
        try:
            yield staged
            files = sorted(path for path in staged.rglob("*") if path.is_file())
            digests = {path.relative_to(staged).as_posix(): file_digest(path) for path in files}
            write_durably(staged / RECORD, json.dumps({**record, "files": digests}, indent=1, sort_keys=True).encode())
            for path in files:
                _sync(path)
            commit(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def record(self, kind: str, fingerprint: str) -> Mapping[str, Json]:
        """The record of a finished artifact, its files checked. Raises DamagedArtifact when one does not match its digest."""
        directory = self.root / kind / fingerprint
        record = cast(dict[str, Json], json.loads((directory / RECORD).read_text()))
        for name, digest in cast(dict[str, str], record["files"]).items():
            if not (directory / name).is_file() or file_digest(directory / name) != digest:
                raise DamagedArtifact(
                    f"{directory / name} is not what was written; delete {directory} and run again to rebuild it"
                )
        return record


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent after a crash, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    staged.write_bytes(data)
    _sync(staged)
    staged.replace(path)
    _sync(path.parent)


def commit(staged: Path, target: Path) -> None:
    """Rename a finished directory into place; leaves an existing target as it is."""
    try:
        staged.rename(target)
    except OSError:
        if not (target / RECORD).is_file():
            raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
