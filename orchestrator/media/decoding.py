"""One file to frames and sound. Runs in a decode child: native decoders hang and crash on bad input, `sandbox` holds the leash.

    preflight ─► what the header declares ─► scan: timeline, sound ─► T moments ─► pictures ─► DecodedClip
                          └── limits ──────────────┴── does it add up? ──┴── how much is damaged?

Why PyAV is the default decoder and not decord (decord2 3.4.0 against PyAV 18.1, both FFmpeg 8; same frames, same pixels):

    |                                            | PyAV                        | decord                          |
    | CPU a clip of 3.5 s, 112 px, with sound    | 10.3 ms                     | 8.7 ms                          |
    | CPU a clip of 3 s, 720p                    | 353 ms                      | 357 ms                          |
    | resident memory of an idle child           | 50 MB                       | 55 MB (694 MB before its import |
    |                                            |                             | was kept from the CUDA wheels)  |
    | damaged pictures                           | counted: flag or rejection  | neighbours repeated in silence  |
    | pictures a phone turned by 90 degrees      | upright                     | garbage: four-byte pixels       |

Sound is PyAV's in both cases: decord's audio reader costs three times as much and refuses clips without sound.
A clip without sound or without pictures is usable: its flag says so. What cannot be used raises Undecodable with a stable code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from errno import EIO
from typing import Literal

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.errors import Undecodable
from orchestrator.media.faces import FaceCrop, detector
from orchestrator.media.pictures import Damage, by_decord, by_pyav, shrinker
from orchestrator.media.preflight import FORMATS, opened
from orchestrator.media.sampling import UniformFrames, nearest
from orchestrator.media.scanning import Scan, scan
from orchestrator.seams import Json
from orchestrator.vocabulary import Clip, DecodedClip

_SHORTFALL, _SLACK_S = 0.9, 0.25  # less than this share of the declared length, and by more than the slack: cut off
_DAMAGED = 0.1  # a larger share of damaged pictures or sound is too much
_MAX_RATE_FPS = 1000


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """How clips are decoded, and what is too much.

    - `faces`: "haar" crops every picture to the face in it, see `media.faces`; its squares are `short_side_px` wide.
    - `frames`: T moments of each clip. `short_side_px`: larger pictures are shrunk to it. `rate_hz`: of the waveform.
    - `decoder`: of the pictures. Limits are per clip; `timeout_s` is wall clock, `max_child_mb` the memory of a decode child.
    """

    frames: int = 8
    short_side_px: int = 224
    rate_hz: int = 16_000
    decoder: Literal["decord", "pyav"] = "pyav"
    faces: Literal["none", "haar"] = "none"
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
        if self.faces not in ("none", "haar"):
            raise ValueError(f"decode.faces is 'none' or 'haar', got {self.faces!r}")
        if self.faces == "haar":
            try:
                detector()
            except ValueError as error:
                raise ValueError(f"decode.faces=haar {error}") from None
        if self.decoder not in ("decord", "pyav"):
            raise ValueError(f"decode.decoder is 'decord' or 'pyav', got {self.decoder!r}")

    def identity(self, *, sound_only: bool = False) -> Mapping[str, Json]:
        """What can change a feature; time and memory limits only decide whether there is one."""
        kept = ("rate_hz",) if sound_only else ("frames", "short_side_px", "rate_hz", "decoder")
        told: dict[str, Json] = {"version": 1, **{name: value for name, value in asdict(self).items() if name in kept}}
        return told if sound_only or self.faces == "none" else {**told, "faces": detector()}


def decode(clip: Clip, settings: DecodeSettings, root: str = "/") -> DecodedClip:
    """Frames and sound of one clip, whose file must lie below `root`. Raises Undecodable."""
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        with opened(clip.path, root, settings.max_bytes) as name, av.open(name, options=options) as container:
            return _decode(clip, container, name, settings)
    except MemoryError as error:
        raise Undecodable("DECODE_MEM", f"more than decode.max_child_mb={settings.max_child_mb} MB were needed") from error
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        code = "IO_ERROR" if getattr(error, "errno", None) == EIO else "UNDECODABLE"
        why = getattr(error, "strerror", None) or str(error)  # without the name of our handle
        raise Undecodable(code, f"{type(error).__name__}: {why[:200]}") from error


def _decode(clip: Clip, container: InputContainer, name: str, settings: DecodeSettings) -> DecodedClip:
    video, sound = _streams(container, settings)
    read = scan(container, video, sound, rate_hz=settings.rate_hz, max_duration_s=settings.max_duration_s)
    flags = {"MULTI_STREAM": len(container.streams.video) + len(container.streams.audio) > 2}
    frames, times_s = np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0)
    if video is not None:
        _check_timeline(container, video, read)
        frames, times_s, seen = _pictures(container, video, name, read, settings)
        flags |= seen
    if sound is not None:
        _check_sound(sound, read, settings.rate_hz)
    waveform = np.nan_to_num(read.waveform, posinf=0, neginf=0).clip(-1, 1)
    if not len(frames) and not len(waveform):
        raise Undecodable("NO_VIDEO", "neither a picture nor a sound could be decoded")
    flags["DAMAGED"] = flags.get("DAMAGED", False) or read.sound_damage > 0
    flags |= {"NO_VIDEO": not len(frames), "NO_AUDIO": not len(waveform), "SILENT": bool(len(waveform)) and not waveform.any()}
    lengths = sorted((read.duration_s, len(waveform) / settings.rate_hz))
    alone = len(container.streams) == (video is not None) + (sound is not None)
    if alone and all(stream.duration is None for stream in container.streams):  # Matroska declares the end of the whole
        _check_length("film", lengths[1], ((container.duration or 0) - (container.start_time or 0)) / av.time_base)
    flags["AV_MISMATCH"] = bool(len(frames) and len(waveform)) and lengths[0] < 0.8 * lengths[1] - _SLACK_S
    return DecodedClip(
        clip_id=clip.clip_id,
        frames=frames,
        frame_times_s=times_s.astype(np.float32),
        waveform=waveform,
        rate_hz=settings.rate_hz,
        transcript=clip.transcript,
        digest=clip.digest,
        flags=tuple(sorted(flag for flag, raised in flags.items() if raised)),
        hint=clip.hint,
    )


def _streams(container: InputContainer, settings: DecodeSettings) -> tuple[VideoStream | None, AudioStream | None]:
    """The best picture and sound streams, if any, after a look at what the file declares."""
    video, sound = container.streams.best("video"), container.streams.best("audio")
    if isinstance(video, VideoStream) and video.disposition & Disposition.attached_pic:
        video = None  # the cover of a song
    if video is None and sound is None:
        raise Undecodable("NO_VIDEO", "the container has no picture and no sound stream")
    duration_s = (container.duration or 0) / av.time_base
    if duration_s > settings.max_duration_s:
        raise Undecodable("TOO_LONG", f"{duration_s:.0f} s, more than decode.max_duration_s={settings.max_duration_s:g}")
    for stream in (video, sound):
        if stream is not None and stream.codec_context is None:
            raise Undecodable("UNDECODABLE", "no decoder knows this codec")
    assert video is None or isinstance(video, VideoStream)
    assert sound is None or isinstance(sound, AudioStream)
    if video is not None:
        video.thread_type, video.codec_context.thread_count = "NONE", 1
        if max(video.width, video.height) > settings.max_side_px:
            raise Undecodable(
                "TOO_LARGE_DIM", f"{video.width} x {video.height} px, more than decode.max_side_px={settings.max_side_px}"
            )
    return video, sound


def _check_timeline(container: InputContainer, video: VideoStream, read: Scan) -> None:
    """Does what was found agree with what was declared? Raises Undecodable."""
    shown = read.packets - read.hidden
    if not len(read.stamps):
        raise Undecodable("TRUNCATED" if video.frames else "UNDECODABLE", "the picture stream has no picture that can be shown")
    if read.packets < _SHORTFALL * video.frames:
        raise Undecodable("TRUNCATED", f"{read.packets} of {video.frames} declared pictures are there")
    if read.orphans > _DAMAGED * shown:
        raise Undecodable("CORRUPT_FRAMES", f"{read.orphans} of {shown} pictures hang on a key picture that is not there")
    if len(read.stamps) + read.orphans < _SHORTFALL * shown - 1:
        raise Undecodable("TIMELINE_IMPLAUSIBLE", f"{shown} pictures at only {len(read.stamps)} different times")
    if len(read.stamps) > _MAX_RATE_FPS * read.duration_s + 1:
        raise Undecodable("TIMELINE_IMPLAUSIBLE", f"{len(read.stamps)} pictures in {read.duration_s:.3f} s")
    declared_s = float((video.duration or 0) * (video.time_base or 0)) - read.hidden * read.duration_s / shown
    _check_length("pictures", read.duration_s, declared_s)


def _check_sound(sound: AudioStream, read: Scan, rate_hz: int) -> None:
    """The same for sound, and how much of it is damaged. Raises Undecodable."""
    broken = 1 - float(np.isfinite(read.waveform).mean()) if len(read.waveform) else 0.0
    if max(read.sound_damage, broken) > _DAMAGED:
        raise Undecodable("CORRUPT_FRAMES", f"{max(read.sound_damage, broken):.0%} of the sound is damaged")
    _check_length("sound", len(read.waveform) / rate_hz, float((sound.duration or 0) * (sound.time_base or 0)))


def _check_length(what: str, found_s: float, declared_s: float) -> None:
    if found_s < _SHORTFALL * declared_s - _SLACK_S:
        raise Undecodable("TRUNCATED", f"{found_s:.2f} s of {what} of {declared_s:.2f} s declared")
    if declared_s > 0 and found_s > 2 * declared_s + 1:
        raise Undecodable("TIMELINE_IMPLAUSIBLE", f"{found_s:.2f} s of {what} where {declared_s:.2f} s are declared")


def _pictures(
    container: InputContainer, video: VideoStream, name: str, read: Scan, settings: DecodeSettings
) -> tuple[NDArray[np.uint8], NDArray[np.float64], dict[str, bool]]:
    """Frames `(T, H, W, 3)`, their times `(T,)` and flags. Raises Undecodable."""
    index = nearest(read.times_s, UniformFrames(settings.frames).times_s(read.duration_s))  # (T,)
    wanted = np.unique(read.stamps[index]).tolist()
    faces = FaceCrop(settings.short_side_px) if settings.faces == "haar" else None
    shrink, damage, turned = faces or shrinker(settings.short_side_px), Damage(), False
    pictures: dict[int, NDArray[np.uint8]] = {}
    sizes = set()
    decoder = by_decord if settings.decoder == "decord" else by_pyav
    for stamp, picture, moved in decoder(container, video, name, read, wanted, damage):
        if max(picture.shape) > settings.max_side_px:
            raise Undecodable("TOO_LARGE_DIM", f"{picture.shape[1]} x {picture.shape[0]} px in spite of its header")
        turned |= moved
        sizes.add(picture.shape)
        pictures[stamp] = shrink(picture)
    missing = len(wanted) - len(pictures)
    if damage.share > _DAMAGED or (missing and damage.damaged):
        raise Undecodable("CORRUPT_FRAMES", f"{damage.damaged} of {damage.decoded} pictures are damaged, {missing} missing")
    if missing:
        raise Undecodable("TRUNCATED", f"{missing} of {len(wanted)} chosen pictures could not be decoded")
    gaps = np.diff(read.stamps)
    flags = {
        "DAMAGED": damage.damaged > 0,
        "VFR": len(gaps) > 1 and gaps.max() > 1.5 * gaps.min() + 1,
        "ROTATED": turned,
        "EDITED": read.hidden > 0.05 * read.packets,
        "RESIZED": len(sizes) > 1,
        "NO_FACE": faces is not None and not faces.found,
    }
    return np.stack([pictures[stamp] for stamp in read.stamps[index].tolist()]), read.times_s[index], flags
