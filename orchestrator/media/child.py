"""The decode child: reads requests from stdin, answers on stdout, dies when its parent does. Started by `sandbox`, never by hand.

    parent ── length, JSON {clip, settings} ──►  child ── length, JSON header, frames bytes, waveform bytes ──►  parent

Limits are set here, in the process they bind. Nothing heavier than a decoder may be imported: its memory is paid per child.
"""

from __future__ import annotations

import ctypes
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
PR_SET_NO_NEW_PRIVS = 38


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes. Raises EOFError when the other side has gone."""
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the other side of the pipe has gone")
    return data


def main() -> None:
    """Serve until stdin closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a decoder that prints must not break the answers
    settings = DecodeSettings(**json.loads(sys.argv[1]))
    _confine(settings)
    while True:
        try:
            size = LENGTH.unpack(read_exactly(sys.stdin.buffer, LENGTH.size))[0]
            request = json.loads(read_exactly(sys.stdin.buffer, size))
        except EOFError:
            return
        _allow_cpu(settings.timeout_s)
        header, payload = answer(request, settings)
        text = json.dumps(header).encode()
        answers.write(LENGTH.pack(len(text)) + text)
        for part in payload:
            answers.write(part)
        answers.flush()


def answer(request: dict[str, Any], settings: DecodeSettings) -> tuple[dict[str, Any], list[memoryview]]:
    """Header and raw arrays for one request."""
    try:
        clip = decode(Clip(request["clip_id"], request["path"], Split.UNLABELLED), settings)
    except Undecodable as error:
        return {"code": error.code, "detail": error.detail}, []
    except MemoryError:
        return {"code": "DECODE_MEM", "detail": f"more than decode.max_child_mb={settings.max_child_mb} MB were needed"}, []
    header = {
        "frame_shape": clip.frames.shape,
        "frame_times_s": clip.frame_times_s.tolist(),
        "samples": len(clip.waveform),
        "rate_hz": clip.rate_hz,
        "flags": list(clip.flags),
    }
    return header, [array.data.cast("B") for array in (np.ascontiguousarray(clip.frames), clip.waveform) if array.size]


def _confine(settings: DecodeSettings) -> None:
    limit = settings.max_child_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _allow_cpu(seconds: float) -> None:
    """CPU time for one more clip; beyond it the kernel ends the child, even when the parent is gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
