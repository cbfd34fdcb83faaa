"""Decode in a child that may hang, swell or die without harm.

    Sandbox.decode(clip) ─► request ─► child: preflight, decode ─► frames and sound, or a reason
                              └ no answer in `timeout_s`: killed, DECODE_TIMEOUT
                              └ died: once more with a fresh child, then DECODER_CRASH

One child, one clip at a time, replaced after `RECYCLE` clips. It is started as `python -m orchestrator.media.child`: no fork of a
process that holds torch or Ray, no re-import of the user's script, and it works in daemons and threads alike. An answer is raw
bytes through a pipe: 0.7 ms a clip of 1.2 MB, no shared memory to leak.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, BinaryIO

import numpy as np

from orchestrator.errors import Undecodable
from orchestrator.media.child import LENGTH, READY
from orchestrator.media.decoding import DecodeSettings
from orchestrator.vocabulary import Clip, DecodedClip, Rejected

RECYCLE = 200  # clips a child decodes before it is replaced: native decoders leak
_START_S = 120.0  # a busy machine may take long to start a process; a broken installation says so at once
_PIPE_BYTES = 1 << 20


class Sandbox:
    """A decoder on a leash, for files below `root`. Close it, or let it go: its child ends with the pipe."""

    def __init__(self, settings: DecodeSettings, root: str | Path = "/") -> None:
        self._settings = settings
        self._root = os.path.abspath(root)
        self._child: subprocess.Popen[bytes] | None = None
        self._decoded = 0
        self._one_at_a_time = Lock()

    def decode(self, clip: Clip) -> DecodedClip | Rejected:
        """Frames and sound, or the reason why there are none. Raises RuntimeError when no child can be started at all."""
        with self._one_at_a_time:
            try:
                try:
                    return self._ask(clip)
                except _ChildDied:
                    return self._ask(clip)  # it may have died of its past: a fresh child gets one try
            except _ChildDied as died:
                return Rejected(clip.clip_id, "decode", "DECODER_CRASH", f"the decoder died on it twice ({died})")
            except Undecodable as error:
                return Rejected(clip.clip_id, "decode", error.code, error.detail)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, clip: Clip) -> DecodedClip:
        if self._decoded >= RECYCLE:
            self.close()
        child = self._child or self._start()
        self._decoded += 1
        deadline = monotonic() + self._settings.timeout_s
        request = json.dumps({"clip_id": clip.clip_id, "path": clip.path}).encode()
        try:
            assert child.stdin is not None
            child.stdin.write(LENGTH.pack(len(request)) + request)
            header = json.loads(self._receive(LENGTH.unpack(self._receive(LENGTH.size, deadline))[0], deadline))
            if "code" in header:
                raise Undecodable(header["code"], header["detail"])
            return self._clip(clip, header, deadline)
        except (EOFError, BrokenPipeError) as error:
            code = child.wait()
            self.close()
            raise _ChildDied(f"exit code {code}") from error
        except TimeoutError as error:
            self.close()
            raise Undecodable("DECODE_TIMEOUT", f"not decoded in decode.timeout_s={self._settings.timeout_s:g} s") from error

    def _clip(self, clip: Clip, header: dict[str, Any], deadline: float) -> DecodedClip:
        shape = tuple(header["frame_shape"])
        frames = np.frombuffer(self._receive(int(np.prod(shape)), deadline), np.uint8).reshape(shape)
        waveform = np.frombuffer(self._receive(4 * header["samples"], deadline), np.float32)
        return DecodedClip(
            clip_id=clip.clip_id,
            frames=frames,
            frame_times_s=np.array(header["frame_times_s"], np.float32),
            waveform=waveform,
            rate_hz=header["rate_hz"],
            transcript=clip.transcript,
            digest=clip.digest,
            flags=tuple(header["flags"]),
            hint=clip.hint,
        )

    def _receive(self, count: int, deadline: float) -> bytearray:
        """`count` bytes of the answer. Raises TimeoutError past the deadline, EOFError when the child has gone."""
        assert self._child is not None
        assert self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        data = bytearray(count)
        view, got = memoryview(data), 0
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        while got < count:
            if not ready.poll(max(0.0, deadline - monotonic()) * 1000):
                raise TimeoutError
            read = os.readv(pipe, [view[got:]])
            if not read:
                raise EOFError
            got += read
        return data

    def _start(self) -> subprocess.Popen[bytes]:
        """A child that has said it is ready. Raises RuntimeError with its own words when it cannot start."""
        self._decoded = 0
        module_path = os.pathsep.join(path for path in sys.path if path)
        with tempfile.TemporaryFile() as words:
            self._child = subprocess.Popen(
                # -P: a file in the working directory must not pass for a module
                [sys.executable, "-P", "-m", "orchestrator.media.child", json.dumps(asdict(self._settings)), self._root],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": module_path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                pipesize=_PIPE_BYTES,
            )
            try:
                self._receive(len(READY), monotonic() + _START_S)
            except (EOFError, TimeoutError) as error:
                code = self._child.wait() if isinstance(error, EOFError) else 0
                self.close()
                if code < 0:  # killed from outside, by the kernel when memory is short
                    raise _ChildDied(f"exit code {code}") from error
                raise RuntimeError(f"a decode child could not be started: {_last_words(words)}") from error
        return self._child


def _last_words(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()[-500:] or "it gave no reason"


class _ChildDied(Exception):
    """The child ended without an answer."""
