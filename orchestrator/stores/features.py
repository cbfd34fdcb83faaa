"""The feature store: one row a (stream, key), in Parquet shards that are committed by one rename and never changed.

    <root>/<stream>/<fingerprint>/part-<content digest>.parquet      key, present, values (fixed-size list of floats)
    <root>/quarantine/<fingerprint>/part-<content digest>.parquet    clips that cannot be used, with the reason

Readers open committed files alone and verify page checksums: without them two of three flipped bits read back as wrong numbers.
A shard that fails is moved aside, so that its clips are encoded again. Plain Arrow types only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.stores.fingerprint import array_digest, fingerprint
from orchestrator.vocabulary import Bools, Floats, Names, Rejected

QUARANTINE = pa.schema([(name, pa.string()) for name in ("clip_id", "stage", "code", "detail")])


class FeatureStore:
    """Features below one directory. Cheap to make and to send: it holds nothing but the path."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def known(self, stream: str, fingerprint: str) -> set[str]:
        """Keys that have a row."""
        tables = _intact(self.root / stream / fingerprint, ["key"])
        return {key for table in tables for key in table["key"].to_pylist()}

    def write(self, stream: str, fingerprint: str, keys: Names, values: Floats, present: Bools) -> None:
        """Commit rows as one shard; writing the same rows again changes nothing. `values` `(B, D)`, `present` `(B,)`."""
        table = pa.table(
            {
                "key": pa.array(keys.tolist(), pa.string()),
                "present": pa.array(present),
                "values": pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1]),
            }
        )
        digest = array_digest(np.asarray(keys, np.str_), values, present)
        _commit(table, self.root / stream / fingerprint / f"part-{digest}.parquet")

    def read(self, stream: str, fingerprint: str, keys: Sequence[str]) -> tuple[Floats, Bools]:
        """Rows in the order of `keys`: values `(N, D)` and presence `(N,)`. Raises KeyError when some have no row."""
        rows: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            rows.setdefault(key, []).append(position)
        values: NDArray[np.floating] | None = None
        present = np.zeros(len(keys), dtype=bool)
        missing = set(rows)
        for table in _intact(self.root / stream / fingerprint, None):
            width = table["values"].type.list_size
            shard = table["values"].combine_chunks().flatten().to_numpy().reshape(-1, width)
            if values is None:
                values = np.zeros((len(keys), width), shard.dtype)
            for i, (key, is_present) in enumerate(zip(table["key"].to_pylist(), table["present"].to_pylist(), strict=True)):
                for position in rows.get(key, ()):
                    values[position], present[position] = shard[i], is_present
                missing.discard(key)
        if missing or values is None:
            raise KeyError(
                f"{len(missing)} of {len(rows)} keys have no row of stream {stream} ({fingerprint}); extract them first"
            )
        return values, present

    def reject(self, shelf: str, rows: Sequence[Rejected]) -> None:
        """Keep clips that cannot be used; the same rows again change nothing."""
        if rows:
            table = pa.Table.from_pylist([asdict(row) for row in rows], schema=QUARANTINE)
            name = fingerprint(*(list(asdict(row).values()) for row in rows))
            _commit(table, self.root / "quarantine" / shelf / f"part-{name}.parquet")

    def rejected(self, shelf: str) -> list[Rejected]:
        """Clips kept by `reject`, one row a clip, sorted."""
        tables = _intact(self.root / "quarantine" / shelf, None)
        rows = {row["clip_id"]: Rejected(**row) for table in tables for row in table.to_pylist()}
        return [rows[clip_id] for clip_id in sorted(rows)]

    def forget_rejected(self, shelf: str) -> None:
        """Drop the rows of a shelf, so that its clips are tried again."""
        for path in (self.root / "quarantine" / shelf).glob("part-*.parquet"):
            path.unlink(missing_ok=True)


def _commit(table: pa.Table, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    pq.write_table(table, staged, compression="zstd", write_page_checksum=True)
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.replace(path)


def _intact(directory: Path, columns: list[str] | None) -> Iterator[pa.Table]:
    """Tables of the committed shards; a damaged one is moved aside and named on stderr."""
    for path in sorted(directory.glob("part-*.parquet")):
        try:
            yield pq.read_table(path, columns=columns, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            if not path.exists():
                continue  # another process moved it aside
            path.replace(path.with_suffix(".damaged"))
            print(f"warning: {path} is damaged ({error}); moved aside, its clips are made again", file=sys.stderr, flush=True)
