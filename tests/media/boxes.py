"""Byte edits of MP4 files: find a box, change a field, and the file lies."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf"}
HEADER = 8  # size and type; full boxes have four more bytes of version and flags


def boxes(data: bytes, start: int = 0, end: int | None = None, path: str = "") -> Iterator[tuple[str, int, int]]:
    """(path, offset, size) of every box, depth first; paths like `moov/trak/mdia`."""
    position, end = start, len(data) if end is None else end
    while position + HEADER <= end:
        size, kind = struct.unpack(">I4s", data[position : position + HEADER])
        if size < HEADER:
            return
        name = f"{path}/{kind.decode('latin-1')}" if path else kind.decode("latin-1")
        yield name, position, size
        if kind in _PARENTS:
            yield from boxes(data, position + HEADER, position + size, name)
        position += size


def find(data: bytes, name: str, nth: int = 0) -> int:
    """Offset of the nth box whose path ends in `name`."""
    return [offset for path, offset, _ in boxes(data) if path.endswith(name)][nth]


def put(data: bytes, offset: int, form: str, *values: int) -> bytes:
    """The data with big-endian values at an offset."""
    packed = struct.pack(">" + form, *values)
    return data[:offset] + packed + data[offset + len(packed) :]


def put_in(data: bytes, name: str, field: int, form: str, *values: int, nth: int = 0) -> bytes:
    """The data with a field of a box changed; `field` counts from the end of the box's header."""
    return put(data, find(data, name, nth) + HEADER + field, form, *values)


def payload(data: bytes) -> tuple[int, int]:
    """Where the media of the file begin and end: the inside of `mdat`."""
    ((offset, size),) = [(offset, size) for path, offset, size in boxes(data) if path == "mdat"]
    return offset + HEADER, offset + size
