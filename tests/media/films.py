"""Small films for the tests, every frame numbered in a way that survives compression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE_FPS, RATE_HZ = 160, 120, 15, 16_000
_BITS, _BLOCK = 10, 16
X264 = {"crf": "20", "preset": "veryfast", "threads": "1", "g": "15", "bf": "2"}


def numbered(number: int, *, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A moving pattern `(height, width, 3)` with `number` in binary along its top edge."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x + 3 * number, y + 5 * number, x + y], axis=-1).astype(np.uint8) // 2 + 60
    for bit in range(_BITS):
        picture[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = 255 * (number >> bit & 1)
    return picture


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number a frame was given."""
    blocks = picture[4 : _BLOCK - 4, : _BITS * _BLOCK].reshape(_BLOCK - 8, _BITS, _BLOCK, 3)[:, :, 4:-4].mean(axis=(0, 2, 3))
    return int(sum(1 << bit for bit in range(_BITS) if blocks[bit] > 128))


def tone(duration_s: float, *, hz: float = 440, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """A sine of amplitude 0.3, `(S,)`."""
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(duration_s * rate_hz)) / rate_hz)).astype(np.float32)


def write_film(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]] | None = None,
    *,
    sound: NDArray[np.float32] | None = None,
    silent: bool = False,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    sound_codec: str = "aac",
    rate_fps: int | Fraction = RATE_FPS,
    rate_hz: int = RATE_HZ,
    layout: str = "mono",
    times: Iterable[int] | None = None,
    sound_start_s: float = 0.0,
    turn: tuple[float, bool] | None = None,
    format: str | None = None,
    container_options: Mapping[str, str] | None = None,
    tracks: int = 1,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Thirty numbered frames and a tone by default. `sound` is `(S,)` or `(channels, S)`; `times` gives frame i its time in
    units of 1 / rate_fps; `turn` is (degrees, mirrored) in the display matrix; `tracks` repeats both streams.
    """
    shots = [numbered(i) for i in range(2 * RATE_FPS)] if pictures is None else list(pictures)
    sound = tone(2.0, rate_hz=rate_hz) if sound is None else sound
    with av.open(str(path), "w", format=format, options=dict(container_options or {})) as container:
        container.metadata.update(metadata or {})
        videos = [
            container.add_stream(codec, rate=rate_fps, options=dict(X264 if options is None else options)) for _ in range(tracks)
        ]
        for video in videos if shots else []:
            video.height, video.width = shots[0].shape[:2]
            video.pix_fmt = pixels
            video.time_base = video.codec_context.time_base = 1 / Fraction(rate_fps)
            if turn:
                video.set_display_rotation(turn[0], hflip=turn[1])
        audios = [] if silent else [container.add_stream(sound_codec, rate=rate_hz, layout=layout) for _ in range(tracks)]
        for video in videos:
            for position, time in enumerate(range(len(shots)) if times is None else times):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shots[position]), format="rgb24")
                frame.pts, frame.time_base = time, 1 / Fraction(rate_fps)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        for audio in audios:
            _write_sound(container, audio, np.atleast_2d(sound), rate_hz, layout, int(sound_start_s * rate_hz))
    return path


def _write_sound(
    container: av.container.OutputContainer,
    audio: av.AudioStream,
    sound: NDArray[np.float32],
    rate_hz: int,
    layout: str,
    start: int,
) -> None:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), start
    container.mux(audio.encode(frame))
    container.mux(audio.encode())
