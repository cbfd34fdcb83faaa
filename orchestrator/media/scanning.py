"""One pass over a file's packets: the timeline of its pictures, and its sound. No picture is decoded here.

packets ─┬─ pictures: presentation time, key or not ─► stamps, keys
         └─ sound: decoded, mixed to mono, resampled ─► waveform
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.errors import Undecodable


@dataclass(frozen=True, slots=True)
class Scan:
    """What the packets tell.

    - `stamps`: int64 `(F,)`, presentation times of the pictures, in ticks of `tick_s` seconds, increasing; from the first key on.
    - `keys`: int64 `(K,)`, those of them where decoding can start.
    - `end`: tick at which the last picture ends. `packets`: pictures stored; `hidden` of them by an edit list, `orphans` before
      the first key: nothing to decode them from.
    - `waveform`: float32 `(S,)`; `sound_damage`: share of its packets that did not decode.
    """

    tick_s: float
    stamps: NDArray[np.int64]
    keys: NDArray[np.int64]
    end: int
    packets: int
    hidden: int
    orphans: int
    waveform: NDArray[np.float32]
    sound_damage: float

    @property
    def times_s(self) -> NDArray[np.float64]:
        """Times of the pictures `(F,)`, the first at 0."""
        return np.asarray((self.stamps - self.stamps[:1]) * self.tick_s)

    @property
    def duration_s(self) -> float:
        """From the first picture to the end of the last."""
        return float(self.end - self.stamps[0]) * self.tick_s if len(self.stamps) else 0.0


def scan(
    container: InputContainer, video: VideoStream | None, sound: AudioStream | None, *, rate_hz: int, max_duration_s: float
) -> Scan:
    """Raises Undecodable (TOO_LONG) as soon as more than `max_duration_s` of pictures or sound were read."""
    rows: list[tuple[int, int, bool, bool]] = []  # time, duration, key, hidden
    heard = _Sound(rate_hz)
    tick_s = float(video.time_base or 0) if video is not None else 0.0
    for packet in container.demux([stream for stream in (video, sound) if stream is not None]):
        stamp = packet.pts if packet.pts is not None else packet.dts  # AVI has no presentation times
        if not packet.size and stamp is not None:
            continue  # an empty packet within the stream would be taken for its end
        if packet.stream is sound:
            heard.hear(sound, packet)
        elif stamp is not None:
            rows.append((stamp, packet.duration or 0, packet.is_keyframe, packet.is_discard))
        span_s = (rows[-1][0] - rows[0][0]) * tick_s if rows else 0.0
        if max(span_s, heard.samples / rate_hz) > max_duration_s:
            raise Undecodable("TOO_LONG", f"it goes on after decode.max_duration_s={max_duration_s:g}")
    shown = [row for row in rows if not row[3]]
    keys = np.unique([stamp for stamp, _, key, _ in shown if key]).astype(np.int64)
    stamps = np.unique([stamp for stamp, *_ in shown]).astype(np.int64)
    orphans = int((stamps < keys[0]).sum()) if len(keys) else 0
    stamps = stamps[orphans:]
    usual = int(np.median(np.diff(stamps))) if len(stamps) > 1 else round(0.04 / tick_s) if tick_s else 0
    end = max((stamp + (duration or usual) for stamp, duration, *_ in shown), default=0)
    return Scan(tick_s, stamps, keys, end, len(rows), len(rows) - len(shown), orphans, heard.waveform(), heard.damage)


class _Sound:
    """Collects sound packet by packet; damaged packets are counted and left out."""

    def __init__(self, rate_hz: int) -> None:
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        self._pieces: list[NDArray[np.float32]] = []
        self._packets = self._failed = 0
        self.samples = 0

    def hear(self, stream: AudioStream, packet: Packet[Any]) -> None:
        self._packets += 1
        try:
            frames = [piece for frame in stream.decode(packet) for piece in self._resampler.resample(frame)]
        except (av.InvalidDataError, av.PatchWelcomeError):
            self._failed += 1
            return
        self._keep(frames)

    @property
    def damage(self) -> float:
        return self._failed / max(1, self._packets)

    def waveform(self) -> NDArray[np.float32]:
        if self.samples:
            self._keep(self._resampler.resample(None))
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])

    def _keep(self, frames: list[AudioFrame]) -> None:
        self._pieces += [np.asarray(frame.to_ndarray(), np.float32).reshape(-1) for frame in frames]
        self.samples += sum(frame.samples for frame in frames)


def declared_frames(path: str | Path) -> int:
    """Pictures a file's header declares; 0 when it has none or does not say. For clips that were decoded before."""
    with av.open(str(path), metadata_errors="ignore") as container:
        return container.streams.video[0].frames if container.streams.video else 0
