"""One file to frames and sound. Runs in a decode child: native decoders hang and crash on bad input, `sandbox` holds the leash.

    container metadata (PyAV) ─ limits, plausibility ─┬─ frames at T moments (decord, or PyAV)  ─► shrink ─► DecodedClip
                                                      └─ sound, mono, `rate_hz` (PyAV: decord's audio costs three times as much)

Both decoders choose the same frames and give the same pixels. PyAV is the default: a child with it is 60 MB, with decord 737 MB
(decord2 loads the CUDA libraries of the torch it finds), at 0.011 and 0.009 CPU-seconds a 3.5 s clip of 112 px.

A clip without sound or without pictures is usable: its flag says so. What cannot be used raises Undecodable with a stable code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from orchestrator.errors import Undecodable
from orchestrator.media.sampling import UniformFrames, nearest
from orchestrator.seams import Json
from orchestrator.vocabulary import Clip, DecodedClip

_SHORTFALL = 0.9  # less than this share of the declared length decoded: the file is cut off
_SEEK_GAP_S = 5.0  # PyAV: seek when the next wanted frame is further away than this


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """How clips are decoded, and what is too much.

    - `frames`: T moments of each clip. `short_side_px`: larger pictures are shrunk to it. `rate_hz`: of the waveform.
    - `decoder`: of the pictures. Limits are per clip; `timeout_s` is wall clock, `max_child_mb` the memory of a decode child.
    """

    frames: int = 8
    short_side_px: int = 224
    rate_hz: int = 16_000
    decoder: Literal["decord", "pyav"] = "pyav"
    max_duration_s: float = 600.0
    max_bytes: int = 2 << 30
    max_side_px: int = 4096
    timeout_s: float = 20.0
    max_child_mb: int = 1536

    def __post_init__(self) -> None:
        for name in (
            "frames",
            "short_side_px",
            "rate_hz",
            "max_duration_s",
            "max_bytes",
            "max_side_px",
            "timeout_s",
            "max_child_mb",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"decode.{name} must be positive, got {getattr(self, name)}")
        if self.decoder not in ("decord", "pyav"):
            raise ValueError(f"decode.decoder is 'decord' or 'pyav', got {self.decoder!r}")

    def identity(self) -> Mapping[str, Json]:
        """What can change a feature; time and memory limits only decide whether there is one."""
        kept = ("frames", "short_side_px", "rate_hz", "decoder")
        return {"version": 1, **{name: value for name, value in asdict(self).items() if name in kept}}


def decode(clip: Clip, settings: DecodeSettings) -> DecodedClip:
    """Frames and sound of one clip. Raises Undecodable."""
    try:
        with av.open(clip.path, options={"protocol_whitelist": "file"}) as container:
            video, flags = _inspect(container, settings)
            frames, times = _no_frames()
            if video is not None:
                read = _frames_by_decord if settings.decoder == "decord" else _frames_by_pyav
                frames, times = read(container, video, settings)
            waveform = _sound(container, settings.rate_hz)
    except Undecodable:
        raise
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise Undecodable("UNDECODABLE", f"{type(error).__name__}: {str(error)[:200]}") from error
    if not len(frames) and not len(waveform):
        raise Undecodable("NO_VIDEO", "neither a picture nor a sound could be decoded")
    flags += [flag for flag, absent in (("NO_VIDEO", not len(frames)), ("NO_AUDIO", not len(waveform))) if absent]
    return DecodedClip(
        clip_id=clip.clip_id,
        frames=frames,
        frame_times_s=times.astype(np.float32),
        waveform=waveform,
        rate_hz=settings.rate_hz,
        transcript=clip.transcript,
        digest=clip.digest,
        flags=tuple(flags),
        hint=clip.hint,
    )


def _inspect(container: InputContainer, settings: DecodeSettings) -> tuple[VideoStream | None, list[str]]:
    """The picture stream, if any, after a look at what the file declares."""
    pictures = [stream for stream in container.streams.video if stream.codec_context.name not in ("mjpeg", "png")]
    if not pictures and not container.streams.audio:
        raise Undecodable("NO_VIDEO", "the container has no picture and no sound stream")
    duration_s = (container.duration or 0) / av.time_base
    if duration_s > settings.max_duration_s:
        raise Undecodable("TOO_LONG", f"{duration_s:.0f} s, more than decode.max_duration_s={settings.max_duration_s:g}")
    if not pictures:
        return None, []
    video = pictures[0]
    video.thread_type = "NONE"
    if max(video.width, video.height) > settings.max_side_px or min(video.width, video.height) < 1:
        raise Undecodable(
            "TOO_LARGE_DIM", f"{video.width} x {video.height} px, more than decode.max_side_px={settings.max_side_px}"
        )
    return video, ["MULTI_STREAM"] if len(pictures) > 1 or len(container.streams.audio) > 1 else []


def _frames_by_decord(
    container: InputContainer, video: VideoStream, settings: DecodeSettings
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    import decord  # 35 MB; only where it is used

    reader = decord.VideoReader(container.name, num_threads=1)
    times_s = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0].astype(np.float64)  # (F,)
    index = _choose(times_s, video, settings)
    unique, back = np.unique(index, return_inverse=True)
    frames = reader.get_batch(unique.tolist()).asnumpy()
    return _shrink(frames[back], settings.short_side_px), times_s[index] - times_s[0]


def _frames_by_pyav(
    container: InputContainer, video: VideoStream, settings: DecodeSettings
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    base = float(video.time_base or 0)
    stamps = np.unique([packet.pts for packet in container.demux(video) if packet.pts is not None]).astype(np.int64)
    times_s = stamps * base
    index = _choose(times_s, video, settings)
    wanted = dict.fromkeys(stamps[index].tolist())
    pictures = dict(_pictures_at(container, video, list(wanted), base))
    missing = [pts for pts in wanted if pts not in pictures]
    if missing:
        raise Undecodable("TRUNCATED", f"{len(missing)} of {len(wanted)} chosen frames could not be decoded")
    frames = np.stack([pictures[pts] for pts in stamps[index].tolist()])
    return _shrink(frames, settings.short_side_px), times_s[index] - times_s[0]


def _pictures_at(
    container: InputContainer, video: VideoStream, wanted: list[int], base: float
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decoded pictures of the wanted time stamps, in order; far ones are reached by seeking."""
    remaining = sorted(wanted)
    container.seek(remaining[0], stream=video)
    while remaining:
        for frame in container.decode(video):
            if frame.pts is None or frame.pts < remaining[0]:
                continue
            if frame.pts == remaining[0]:
                picture = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
                yield remaining[0], np.ascontiguousarray(picture)
            remaining = [pts for pts in remaining if pts > frame.pts]
            if not remaining or (remaining[0] - frame.pts) * base > _SEEK_GAP_S:
                break
        else:
            return
        if remaining:
            container.seek(remaining[0], stream=video)


def _choose(times_s: NDArray[np.float64], video: VideoStream, settings: DecodeSettings) -> NDArray[np.int64]:
    """Frames nearest to the wanted moments. Raises Undecodable when the timeline makes no sense."""
    if not len(times_s):
        raise Undecodable("UNDECODABLE", "the picture stream has no frame")
    if not np.isfinite(times_s).all() or (np.diff(times_s) < 0).any():
        raise Undecodable("TIMELINE_IMPLAUSIBLE", "presentation times do not increase")
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.04
    duration_s = float(times_s[-1] - times_s[0]) + step
    if duration_s > settings.max_duration_s:
        raise Undecodable(
            "TOO_LONG", f"{duration_s:.0f} s of pictures, more than decode.max_duration_s={settings.max_duration_s:g}"
        )
    declared_s = float((video.duration or 0) * (video.time_base or 0))
    if declared_s > 0 and duration_s < _SHORTFALL * declared_s - 0.5:
        raise Undecodable("TRUNCATED", f"{duration_s:.2f} s of pictures of {declared_s:.2f} s declared")
    return nearest(times_s - times_s[0], UniformFrames(settings.frames).times_s(duration_s))


def _shrink(frames: NDArray[np.uint8], short_side_px: int) -> NDArray[np.uint8]:
    """Frames `(T, H, W, 3)` with the short side at most `short_side_px`."""
    height, width = frames.shape[1:3]
    if min(height, width) <= short_side_px:
        return frames
    scale = short_side_px / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames])


def _sound(container: InputContainer, rate_hz: int) -> NDArray[np.float32]:
    """Mono waveform `(S,)` of the first sound stream; empty when there is none."""
    if not container.streams.audio:
        return np.zeros(0, np.float32)
    stream = container.streams.audio[0]
    stream.thread_type = "NONE"
    container.seek(0)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
    pieces = [piece for frame in container.decode(stream) for piece in resampler.resample(frame)]
    pieces += resampler.resample(None)
    if not pieces:
        return np.zeros(0, np.float32)
    waveform = np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces]).astype(np.float32)
    declared_s = float((stream.duration or 0) * (stream.time_base or 0))
    if declared_s > 0 and len(waveform) < (_SHORTFALL * declared_s - 0.5) * rate_hz:
        raise Undecodable("TRUNCATED", f"{len(waveform) / rate_hz:.2f} s of sound of {declared_s:.2f} s declared")
    return np.nan_to_num(waveform).clip(-1, 1)


def _no_frames() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0)
