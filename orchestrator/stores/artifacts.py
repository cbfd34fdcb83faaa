"""Finished steps on disk: a directory whose `record.json` says it is whole.

    <root>/<kind>/.<fingerprint>-<random>/          while it is written; swept after a week when its writer was killed
    <root>/<kind>/<fingerprint>/                    after one rename; record.json holds the SHA-256 of every file
    <root>/<kind>/.damaged-<fingerprint>-<random>/  when its files are no longer what was written

A step whose directory exists is skipped: this one rule gives caching, resume and sharing between runs. Two writers never mix: the
first rename wins and the second writer's copy is dropped. A damaged artifact counts as missing, so that it is made again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

from orchestrator.errors import DamagedArtifact
from orchestrator.seams import Json
from orchestrator.stores.fingerprint import file_digest

RECORD = "record.json"
_ABANDONED_S = 7 * 86_400.0  # longer than any step takes between its first file and its commit


class ArtifactStore:
    """Artifacts below one directory, by kind and fingerprint."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def find(self, kind: str, fingerprint: str) -> Path | None:
        """Directory of a finished artifact, every file checked; None when there is none. A damaged one is set aside."""
        directory = self.root / kind / fingerprint
        if not directory.is_dir():
            return None
        try:
            self.record(kind, fingerprint)
        except DamagedArtifact as error:
            set_aside(directory)
            print(f"warning: {error}; set aside, it is made again", file=sys.stderr, flush=True)
            return None
        return directory

    @contextmanager
    def write(self, kind: str, fingerprint: str, record: Mapping[str, Json]) -> Iterator[Path]:
        """A directory to fill; committed when the block ends well, gone when it raises."""
        target = self.root / kind / fingerprint
        staged = target.with_name(f".{fingerprint}-{uuid4().hex[:8]}")
        staged.mkdir(parents=True)
        sweep(target.parent)
        try:
            yield staged
            files = sorted(path for path in staged.rglob("*") if path.is_file())
            digests = {path.relative_to(staged).as_posix(): file_digest(path) for path in files}
            for path in [*files, *(path for path in staged.rglob("*") if path.is_dir())]:
                sync(path)
            write_durably(staged / RECORD, json.dumps({**record, "files": digests}, indent=1, sort_keys=True).encode())
            _commit(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def record(self, kind: str, fingerprint: str) -> Mapping[str, Json]:
        """The record of a finished artifact. Raises DamagedArtifact when it, or a file it names, is not what was written."""
        directory = self.root / kind / fingerprint
        try:
            record = cast(dict[str, Json], json.loads((directory / RECORD).read_bytes()))
            digests = cast(dict[str, str], record["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise DamagedArtifact(f"{directory / RECORD} cannot be read ({type(error).__name__})") from error
        for name, digest in digests.items():
            path = directory / name
            if not path.is_file() or file_digest(path) != digest:
                raise DamagedArtifact(f"{path} is not what was written; delete {directory} and run again to rebuild it")
        return record


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent after a crash, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    try:
        staged.write_bytes(data)
        sync(staged)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(path: Path) -> None:
    """Rename something damaged so that nobody finds it; another process may be quicker."""
    try:
        path.rename(path.with_name(f".damaged-{path.name}-{uuid4().hex[:8]}"))
    except FileNotFoundError:
        return


def sweep(directory: Path) -> None:
    """Remove what killed writers left in a directory more than a week ago."""
    for path in directory.glob(".*"):
        try:
            abandoned = not path.name.startswith(".damaged-") and path.stat().st_mtime < time.time() - _ABANDONED_S
        except FileNotFoundError:
            continue
        if abandoned and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif abandoned:
            path.unlink(missing_ok=True)


def _commit(staged: Path, target: Path) -> None:
    """Rename a finished directory into place; a whole one that is there already stays."""
    if target.is_dir() and not (target / RECORD).is_file():
        set_aside(target)  # half deleted by somebody: a rename onto it would fail for ever
    try:
        staged.rename(target)
    except OSError:
        if not (target / RECORD).is_file():
            raise
    sync(target.parent)
