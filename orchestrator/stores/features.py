"""The feature store: one row a (stream, key), in Parquet shards that are committed whole and never changed.

    <root>/<stream>/<fingerprint>/part-<SHA-256 of the file>.parquet   key, present, values (fixed-size list of floats)
    <root>/quarantine/<fingerprint>/part-<...>.parquet                 clips that cannot be used, with the reason

`root` is a directory or an fsspec URL. A shard's name tells its bytes: a batch stored twice rests once, and a reader checks all
of them, since without a check two of three flipped bits read back as wrong numbers. A shard that fails is set aside, and its
clips count as unknown. When a key has two rows (a block that ran twice on a GPU), the shard first by name speaks, always the
same one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray

from orchestrator.errors import DamagedArtifact
from orchestrator.stores.artifacts import ArtifactStore
from orchestrator.stores.fingerprint import array_digest, fingerprint
from orchestrator.stores.folder import Folder
from orchestrator.vocabulary import Bools, Features, Floats, Names, Rejected

QUARANTINE = pa.schema([(name, pa.string()) for name in ("clip_id", "stage", "code", "detail", "digest")])
SHARD_BYTES = 16 << 20  # a reader holds a dozen shards at a time, whatever is stored
_READERS = 8  # shards fetched at once: hides the latency of an object store
JOINED = "joined"


class FeatureStore:
    """Features below one directory or URL. Cheap to make and to send: it holds nothing but the place."""

    def __init__(self, root: str | Path) -> None:
        self._folder = Folder(root)

    def known(self, stream: str, fingerprint: str) -> set[str]:
        """Keys that have a row. Reads every shard, so that a damaged one is found before the work is planned."""
        shelf = _shelf(stream, fingerprint)
        self._folder.sweep(shelf)
        return {key for table in self._tables(shelf, ["key"]) for key in table["key"].to_pylist()}

    def write(self, stream: str, fingerprint: str, keys: Names, values: Floats, present: Bools) -> None:
        """Commit rows; writing the same rows again changes nothing. `values` `(B, D)` finite, `present` `(B,)`."""
        if not np.isfinite(values).all():
            bad = keys[~np.isfinite(values).all(axis=1)]
            raise ValueError(f"features of stream {stream} are not finite for {len(bad)} of {len(keys)} keys, first {bad[0]}")
        about = {"stream": stream, "fingerprint": fingerprint}
        rows = max(1, SHARD_BYTES // max(1, values.shape[1] * values.itemsize))
        for start in range(0, len(keys), rows):
            part = slice(start, start + rows)
            columns = {
                "key": pa.array(keys[part].tolist(), pa.string()),
                "present": pa.array(present[part]),
                "values": matrix_column(values[part]),
            }
            self._put(_shelf(stream, fingerprint), pa.table(columns).replace_schema_metadata(about))

    def read(self, stream: str, fingerprint: str, keys: Sequence[str]) -> tuple[Floats, Bools]:
        """Rows in the order of `keys`: values `(N, D)` and presence `(N,)`. Raises KeyError when some have no row."""
        return self._fill(stream, fingerprint, keys, lambda width, dtype: np.zeros((len(keys), width), dtype))

    def join(
        self, wanted: Mapping[str, tuple[str, Sequence[str]]], clip_ids: Names, cache: ArtifactStore, *, half: bool = False
    ) -> Features:
        """Several streams side by side as memory-mapped arrays, what training reads; made once, then found in `cache`.

        `wanted[stream]` is (fingerprint, keys in the order of `clip_ids`). `half` keeps them in float16. Raises KeyError as
        `read` does, and ValueError when a value is too large for float16.
        """
        parts = {stream: [shelf, array_digest(np.asarray(keys, np.str_))] for stream, (shelf, keys) in wanted.items()}
        name = fingerprint(JOINED, parts, half)
        directory = cache.find(JOINED, name)
        if directory is None:
            with cache.write(JOINED, name, {"streams": parts, "half": half}) as staged:
                for stream, (shelf, keys) in wanted.items():
                    self._write_joined(staged, stream, shelf, keys, half)
            directory = cache.find(JOINED, name)
            assert directory is not None, "just written"
        return Features(
            clip_ids,
            {stream: np.load(directory / f"{stream}.npy", mmap_mode="r", allow_pickle=False) for stream in wanted},
            np.stack([np.load(directory / f"{stream}.present.npy", allow_pickle=False) for stream in wanted], axis=1),
        )

    def reject(self, shelf: str, rows: Sequence[Rejected], digests: Mapping[str, str] | None = None) -> None:
        """Keep clips that cannot be used, with the digest of each file where known; the same rows again change nothing."""
        if rows:
            told = [(row.clip_id, row.stage, row.code, row.detail, (digests or {}).get(row.clip_id, "")) for row in rows]
            columns = [pa.array(column, pa.string()) for column in zip(*told, strict=True)]
            self._put(_shelf("quarantine", shelf), pa.Table.from_arrays(columns, schema=QUARANTINE))

    def rejected(self, shelf: str, digests: Mapping[str, str] | None = None) -> list[Rejected]:
        """Clips kept by `reject`, one row a clip, sorted. With `digests`, a clip whose file has changed since is left out.

        So is one that could not be read then (its digest is "") and can be now.
        """
        rows: dict[str, Rejected] = {}
        for table in self._tables(_shelf("quarantine", shelf), None):
            for row in table.to_pylist():
                digest = row.pop("digest")
                if digests is None or digests.get(row["clip_id"], digest) == digest:
                    rows[row["clip_id"]] = Rejected(**row)
        return [rows[clip_id] for clip_id in sorted(rows)]

    def forget_rejected(self, shelf: str) -> None:
        """Drop the rows of a shelf, so that its clips are tried again."""
        for name in self._folder.names(_shelf("quarantine", shelf)):
            self._folder.remove(name)

    def _put(self, shelf: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()  # floats hardly compress: plain pages are the fastest both ways
        pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True)
        data = sink.getvalue().to_pybytes()
        self._folder.put(f"{shelf}/part-{hashlib.sha256(data).hexdigest()}.parquet", data)

    def _tables(self, shelf: str, columns: list[str] | None) -> Iterator[pa.Table]:
        """Tables of the intact shards, by name; a damaged one is set aside and named on stderr."""
        names = iter(name for name in self._folder.names(shelf) if name.endswith(".parquet"))
        with ThreadPoolExecutor(_READERS) as pool:
            while batch := list(islice(names, _READERS)):
                for name, data in zip(batch, pool.map(self._intact, batch), strict=True):
                    if data is not None:
                        yield _parse(f"{self._folder.url}/{name}", data, shelf, columns)

    def _intact(self, name: str) -> bytes | None:
        try:
            data = self._folder.read(name)
        except FileNotFoundError:
            return None  # another process has set it aside
        if name.endswith(f"/part-{hashlib.sha256(data).hexdigest()}.parquet"):
            return data
        self._folder.set_aside(name)
        place = f"{self._folder.url}/{name}"
        print(f"warning: {place} is damaged; set aside, its clips are made again", file=sys.stderr, flush=True)
        return None

    def _fill(
        self, stream: str, fingerprint: str, keys: Sequence[str], make: Callable[[int, DTypeLike], Floats]
    ) -> tuple[Floats, Bools]:
        """Rows into the array that `make(width, dtype)` gives."""
        positions: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, []).append(position)
        asked = len(positions)
        values: Floats | None = None
        present = np.zeros(len(keys), dtype=bool)
        for table in self._tables(_shelf(stream, fingerprint), None):
            rows = matrix(table, "values")  # (B, D)
            values = make(rows.shape[1], rows.dtype) if values is None else values
            if rows.shape[1] != values.shape[1]:
                widths = f"{values.shape[1]} and of {rows.shape[1]}"
                raise DamagedArtifact(f"stream {stream} ({fingerprint}) holds rows of {widths} values; delete it and run again")
            found = [(i, row) for row, key in enumerate(table["key"].to_pylist()) for i in positions.pop(key, ())]
            if found:
                into, of = np.array(found).T
                values[into], present[into] = rows[of], table["present"].to_numpy()[of]
            if not positions:
                break
        if positions or values is None:
            lacking = f"{len(positions)} of {asked} keys have no row of stream {stream} ({fingerprint})"
            raise KeyError(f"{lacking}; extract them first")
        return values, present

    def _write_joined(self, directory: Path, stream: str, shelf: str, keys: Sequence[str], half: bool) -> None:
        def mapped(width: int, dtype: DTypeLike) -> Floats:
            kind = np.float16 if half else dtype
            path = directory / f"{stream}.npy"
            return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(len(keys), width))

        with np.errstate(over="ignore"):
            values, present = self._fill(stream, shelf, keys, mapped)
        if not all(np.isfinite(values[start : start + 4096]).all() for start in range(0, len(keys), 4096)):
            raise ValueError(f"stream {stream} holds values above {np.finfo(np.float16).max:g}: keep it in float32")
        np.save(directory / f"{stream}.present.npy", present)


def matrix_column(values: NDArray[np.generic]) -> pa.FixedSizeListArray:
    """`(N, D)` as a plain Arrow column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def matrix(table: pa.Table, name: str) -> NDArray[Any]:
    """`(N, D)` of a column made by `matrix_column`."""
    column = table[name].combine_chunks()
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size))


def _parse(place: str, data: bytes, shelf: str, columns: list[str] | None) -> pa.Table:
    table = pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)
    told = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if told and _shelf(told["stream"], told["fingerprint"]) != shelf:
        raise DamagedArtifact(f"{place} holds {told}, not {shelf}: somebody moved it; delete it and run again")
    return table


def _shelf(first: str, second: str) -> str:
    return f"{first}/{second}"
