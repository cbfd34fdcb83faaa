"""The decode child: reads requests from stdin, answers on stdout, dies when its parent does. Started by `sandbox`, never by hand.

    parent ── length, JSON clip ──►  child ── length, JSON header, bytes of frames, bytes of waveform ──►  parent

Limits are set here, in the process they bind. Nothing heavier than a decoder may be imported: its memory is paid per child.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import numpy as np

from orchestrator.errors import Undecodable
from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.vocabulary import Clip, Split

LENGTH = struct.Struct("<Q")
READY = b"ready"
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes. Raises EOFError when the other side has gone."""
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the other side of the pipe has gone")
    return data


def main() -> None:
    """Serve until stdin closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # a decoder that prints must not break the answers
    settings, root = DecodeSettings(**json.loads(sys.argv[1])), sys.argv[2]
    _confine(settings)
    answers.write(READY)
    answers.flush()
    os.dup2(nowhere, sys.stderr.fileno())  # decoders flood it with the content of files
    gc.freeze()
    while True:
        try:
            size = LENGTH.unpack(read_exactly(sys.stdin.buffer, LENGTH.size))[0]
            request = json.loads(read_exactly(sys.stdin.buffer, size))
        except EOFError:
            return
        _allow_time(settings.timeout_s)
        header, payload = answer(request, settings, root)
        text = json.dumps(header).encode()
        answers.write(LENGTH.pack(len(text)) + text)
        for part in payload:
            answers.write(part)
        answers.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.collect()  # 1 ms: a container and its streams are a cycle around native memory that Python cannot see growing


def answer(request: dict[str, Any], settings: DecodeSettings, root: str) -> tuple[dict[str, Any], list[memoryview]]:
    """Header and raw arrays for one request."""
    try:
        clip = decode(Clip(request["clip_id"], request["path"], Split.UNLABELLED), settings, root)
    except Undecodable as error:
        return {"code": error.code, "detail": error.detail}, []
    header = {
        "frame_shape": clip.frames.shape,
        "frame_times_s": clip.frame_times_s.tolist(),
        "samples": len(clip.waveform),
        "rate_hz": clip.rate_hz,
        "flags": list(clip.flags),
    }
    return header, [np.ascontiguousarray(array).data.cast("B") for array in (clip.frames, clip.waveform) if array.size]


def _confine(settings: DecodeSettings) -> None:
    """Memory, no writing, no core files, no new privileges; and no network, where the kernel lets us."""
    limit = settings.max_child_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    kernel = ctypes.CDLL(None, use_errno=True)
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.geteuid() != 0 or kernel.unshare(_CLONE_NEWNET):
        kernel.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # refused in some containers: the checks before decoding still hold


def _allow_time(seconds: float) -> None:
    """Time for one more clip. Beyond it the kernel ends the child, also when the parent is gone and cannot."""
    signal.setitimer(signal.ITIMER_REAL, seconds + 5)
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
