"""What is checked before any native code sees a file: cheap, in the parent, without reading more than its first bytes.

A pipe hangs a decoder for ever and a playlist named .mp4 makes it read other files or the network; neither gets that far.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.errors import Undecodable

_SYNC_BYTE, _TS_PACKET = 0x47, 188


def preflight(path: str, root: Path, max_bytes: int) -> None:
    """Raises Undecodable unless `path` is a regular, non-empty file below `root` that begins like a video container."""
    if "://" in path or not path.startswith("/"):
        raise Undecodable("BAD_SCHEME", f"{path!r} is not an absolute file name")
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(path)
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            raise Undecodable("OUTSIDE_ROOT", f"it leads to {os.path.realpath(path)}, outside {root}")
        if not stat.S_ISREG(status.st_mode):
            raise Undecodable("NOT_REGULAR", f"not a regular file (mode {stat.filemode(status.st_mode)})")
        if status.st_size == 0:
            raise Undecodable("EMPTY", "the file has no bytes")
        if status.st_size > max_bytes:
            raise Undecodable("TOO_BIG", f"{status.st_size:,} bytes, more than decode.max_bytes={max_bytes:,}")
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            head = os.read(handle, 2 * _TS_PACKET + 16)
        finally:
            os.close(handle)
    except OSError as error:
        raise Undecodable("IO_ERROR", f"{error.strerror or error}") from error
    if not _is_container(head):
        raise Undecodable("BAD_MAGIC", f"begins with {head[:12]!r}: not MP4, MOV, Matroska, WebM, AVI or MPEG-TS")


def _is_container(head: bytes) -> bool:
    """Whether the first bytes are those of a container on the allow-list."""
    iso = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
    matroska = head[:4] == b"\x1a\x45\xdf\xa3"
    avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    transport = len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == _SYNC_BYTE
    return iso or matroska or avi or transport
