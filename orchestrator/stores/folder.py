"""Files below one place, a local directory or any fsspec URL (`s3://bucket/features`), each whole or absent and never changed.

    local          write a hidden file, flush, rename
    object store   the PUT is the commit

Apart because the feature store should not care where it lives. Artifacts stay on a file system: they are renamed as directories.
"""

from __future__ import annotations

from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from orchestrator.errors import InputError
from orchestrator.stores.artifacts import set_aside, sweep, write_durably


class Folder:
    """Names are relative, with `/`. Cheap to make; travels to workers as its URL."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        try:
            self._files, self._root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InputError(f"cannot store in {self.url}: {error}. Object stores need s3fs, gcsfs, ... installed") from error
        self._local = isinstance(self._files, LocalFileSystem)
        if self._local:
            self.url = self._root  # absolute: a worker stands in another directory

    def __reduce__(self) -> tuple[type[Folder], tuple[str]]:
        return type(self), (self.url,)

    def names(self, directory: str) -> list[str]:
        """Committed files of a directory, sorted, as `directory/name`; empty when there is no such directory."""
        place = self._at(directory)
        self._files.invalidate_cache(place)  # object stores remember old listings
        try:
            found = self._files.ls(place, detail=False)
        except FileNotFoundError:
            return []
        files = (path.rstrip("/").rpartition("/")[2] for path in found)
        return sorted(f"{directory}/{name}" for name in files if not name.startswith("."))

    def read(self, name: str) -> bytes:
        """Bytes of a file. Raises FileNotFoundError."""
        return bytes(self._files.cat_file(self._at(name)))

    def put(self, name: str, data: bytes) -> None:
        """Commit a file; one that is there already stays."""
        if self._files.exists(self._at(name)):
            return
        if self._local:
            write_durably(Path(self._at(name)), data)
        else:
            self._files.pipe_file(self._at(name), data)

    def set_aside(self, name: str) -> None:
        """Hide a damaged file under a name that readers skip."""
        if self._local:
            set_aside(Path(self._at(name)))
        else:
            directory, _, file = name.rpartition("/")
            self._files.mv(self._at(name), self._at(f"{directory}/.damaged-{file}"))

    def remove(self, name: str) -> None:
        """Delete a file; it may be gone already."""
        if self._files.exists(self._at(name)):
            self._files.rm_file(self._at(name))

    def sweep(self, directory: str) -> None:
        """Remove what killed writers left; object stores have no half-written files."""
        if self._local:
            sweep(Path(self._at(directory)))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"
