"""Decoded clips as Arrow tables, the form in which they cross the object store.

Plain Arrow types only: Ray's tensor extension columns once ran code on reading. Pixels and samples are binary columns, read back
without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from orchestrator.vocabulary import DecodedClip

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("digest", pa.string()),
        ("transcript", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("frames", pa.large_binary()),
        ("frame_shape", pa.list_(pa.int32())),
        ("frame_times_s", pa.list_(pa.float32())),
        ("waveform", pa.large_binary()),
        ("rate_hz", pa.int32()),
        ("hint", pa.string()),
    ]
)


def to_table(clips: Sequence[DecodedClip]) -> pa.Table:
    """One row a clip."""
    rows = [
        {
            "clip_id": clip.clip_id,
            "digest": clip.digest,
            "transcript": clip.transcript,
            "flags": list(clip.flags),
            "frames": np.ascontiguousarray(clip.frames).tobytes(),
            "frame_shape": clip.frames.shape,
            "frame_times_s": clip.frame_times_s.tolist(),
            "waveform": np.ascontiguousarray(clip.waveform, np.float32).tobytes(),
            "rate_hz": clip.rate_hz,
            "hint": clip.hint,
        }
        for clip in clips
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> list[DecodedClip]:
    """The clips of a table; frames and waveform are views of its buffers, empty once their column has been dropped."""
    frames, waveforms = (_buffers(table, name) for name in ("frames", "waveform"))
    small = table.select([name for name in SCHEMA.names if name in table.column_names and name not in ("frames", "waveform")])
    return [
        DecodedClip(
            clip_id=row["clip_id"],
            frames=np.frombuffer(picture, np.uint8).reshape(row["frame_shape"] if picture else (0, 0, 0, 3)),
            frame_times_s=np.asarray(row["frame_times_s"], np.float32),
            waveform=np.frombuffer(sound, np.float32),
            rate_hz=row["rate_hz"],
            transcript=row["transcript"],
            digest=row["digest"],
            flags=tuple(row["flags"]),
            hint=row["hint"],
        )
        for row, picture, sound in zip(small.to_pylist(), frames, waveforms, strict=True)
    ]


def _buffers(table: pa.Table, name: str) -> list[pa.Buffer | bytes]:
    if name not in table.column_names:
        return [b""] * len(table)
    return [cell.as_buffer() or b"" for cell in table[name]]
