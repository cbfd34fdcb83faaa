"""What is checked before any native code sees a file: cheap, and without reading more than its first bytes.

A pipe hangs a decoder for ever, and a playlist named .mp4 makes it read other files or the network; neither gets that far.

    name ─ no protocol ─ regular ─ below root ─ size ─► handle ─ the same on what was opened ─ first bytes ─► /proc/self/fd/N

The decoders get the handle, never the name: what they open is what was checked, whatever happens to the name meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Final

from orchestrator.errors import Undecodable

FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts"  # FFmpeg's names of the containers below
_SYNC_BYTE, _TS_PACKET = 0x47, 188
_PASSING = {errno.EIO, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE}
_WAITS_S = (0.1, 0.5, 2.0)  # before another try at a file whose disk or network stumbled


@contextmanager
def opened(path: str, root: str, max_bytes: int) -> Iterator[str]:
    """A name under which decoders may open the file. Raises Undecodable unless `path` is a regular, non-empty file below `root`
    that begins like a video container.
    """
    if "://" in path or not path.startswith("/") or "\0" in path:
        raise Undecodable("BAD_SCHEME", f"{path!r} is not an absolute file name")
    handle = _open(path, os.path.realpath(root), max_bytes)
    try:
        head = os.pread(handle, 2 * _TS_PACKET + 16, 0)
        if not _is_container(head):
            raise Undecodable("BAD_MAGIC", f"begins with {head[:12]!r}: not MP4, MOV, Matroska, WebM, AVI or MPEG-TS")
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _open(path: str, root: str, max_bytes: int) -> int:
    for wait_s in (*_WAITS_S, None):
        try:
            _check(os.stat(path), os.path.realpath(path), root, max_bytes)  # before opening: a device acts on being opened
            handle = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                _check(os.fstat(handle), os.readlink(f"/proc/self/fd/{handle}"), root, max_bytes)
            except Undecodable:
                os.close(handle)
                raise
            return handle
        except OSError as error:
            if wait_s is None or error.errno not in _PASSING:
                raise Undecodable("IO_ERROR", f"{path}: {error.strerror or error}") from error
            sleep(wait_s)
    raise AssertionError("unreachable")


def _check(status: os.stat_result, real: str, root: str, max_bytes: int) -> None:
    if os.path.commonpath((real, root)) != root:
        raise Undecodable("OUTSIDE_ROOT", f"it leads to {real}, outside {root}")
    if not stat.S_ISREG(status.st_mode):
        raise Undecodable("NOT_REGULAR", f"not a regular file ({stat.filemode(status.st_mode)})")
    if status.st_size == 0:
        raise Undecodable("EMPTY", "the file has no bytes")
    if status.st_size > max_bytes:
        raise Undecodable("TOO_BIG", f"{status.st_size:,} bytes, more than decode.max_bytes={max_bytes:,}")


def _is_container(head: bytes) -> bool:
    """Whether the first bytes are those of a container on the allow-list."""
    iso = head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
    matroska = head[:4] == b"\x1a\x45\xdf\xa3"
    avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    transport = len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == _SYNC_BYTE
    return iso or matroska or avi or transport
