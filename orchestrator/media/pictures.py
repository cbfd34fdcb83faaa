"""The chosen pictures of a clip, by either decoder: the same frames, the same pixels.

Both jump over groups of pictures nobody asked for, and hand over one picture at a time, upright: T pictures of a large video
never lie in memory at full size.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from orchestrator.errors import Undecodable
from orchestrator.media.scanning import Scan

Picture = NDArray[np.uint8]  # (H, W, 3), RGB
_WORTH_A_JUMP = 8  # pictures: seeking costs about as much as decoding this many


class Damage:
    """How much of what was decoded is damaged."""

    def __init__(self) -> None:
        self.decoded = self.damaged = 0

    @property
    def share(self) -> float:
        return self.damaged / max(1, self.decoded)


def by_pyav(
    container: InputContainer, video: VideoStream, name: str, scan: Scan, wanted: list[int], damage: Damage
) -> Iterator[tuple[int, Picture, bool]]:
    """(stamp, picture, turned) for the wanted stamps (increasing) that can be decoded, in order."""
    known, keys = scan.stamps.tolist(), scan.keys.tolist() or scan.stamps[:1].tolist()
    left, start, jumps = list(wanted), _key_before(keys, wanted[0]), True
    painter = VideoReformatter()
    while left:
        for number, (stamp, frame) in enumerate(_decoded(container, video, scan, start, damage)):
            if jumps and number == 0 and stamp > left[0]:
                start, jumps = keys[0], False  # this container's seeking is off: walk it from the beginning
                break
            if stamp == left[0]:
                yield stamp, *_upright(frame, painter)
            left = left[bisect_right(left, stamp) :]
            if not left:
                return
            key = _key_before(keys, left[0])
            if jumps and bisect_right(known, key) - bisect_right(known, stamp) >= _WORTH_A_JUMP:
                start = key
                break
        else:
            return


def _decoded(
    container: InputContainer, video: VideoStream, scan: Scan, start: int, damage: Damage
) -> Iterator[tuple[int, VideoFrame]]:
    """Pictures from a key on, with their stamps; AVI knows no presentation times, there pictures are counted."""
    known = scan.stamps.tolist()
    slack_s = 10 if start == known[0] else 2 if container.format.name == "mpegts" else 0  # MPEG-TS lands after what was asked for
    container.seek(min(start, max(0, start - round(slack_s / scan.tick_s))), stream=video)
    counted = known.index(start) if container.format.name == "avi" else None
    for packet in container.demux(video):
        if not packet.size and packet.dts is not None:
            continue  # an empty packet within the stream would be taken for its end
        try:
            frames = packet.decode()
        except (av.InvalidDataError, av.PatchWelcomeError):
            damage.decoded, damage.damaged = damage.decoded + 1, damage.damaged + 1
            continue
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            damage.decoded, damage.damaged = damage.decoded + 1, damage.damaged + frame.is_corrupt
            stamp = frame.pts if counted is None else known[min(counted, len(known) - 1)]
            counted = None if counted is None else counted + 1
            if stamp is not None:
                yield stamp, frame


def _key_before(keys: list[int], stamp: int) -> int:
    return keys[max(0, bisect_right(keys, stamp) - 1)]


def _upright(frame: VideoFrame, painter: VideoReformatter) -> tuple[Picture, bool]:
    """The picture as it is to be shown, and whether it had to be turned or mirrored for that (ISO 14496-12, 8.5.3, matrix)."""
    # without a shared painter and threads=1 every frame starts threads of its own: 290 of them, 2.5 GB of stacks after 20 clips
    picture = np.asarray(painter.reformat(frame, format="rgb24", threads=1).to_ndarray(), np.uint8)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, Buffer):
        return picture, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) > abs(a):
        picture, across, down = picture.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    picture = picture[:, ::-1] if across < 0 else picture
    picture = picture[::-1] if down < 0 else picture
    return np.ascontiguousarray(picture), bool(b or a < 0 or d < 0)


def by_decord(
    container: InputContainer, video: VideoStream, name: str, scan: Scan, wanted: list[int], damage: Damage
) -> Iterator[tuple[int, Picture, bool]]:
    """The same by decord, which repeats the neighbours of damaged pictures and does not say so.

    In MPEG-TS and AVI it hands out other pictures than those asked for: there PyAV takes its place.
    """
    if container.format.name in ("mpegts", "avi"):
        yield from by_pyav(container, video, name, scan, wanted, damage)
        return
    decord = _import_decord()
    try:
        reader = decord.VideoReader(name, num_threads=1)
        times_s = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0].astype(np.float64)  # (F,)
        gaps_s = np.abs((times_s - times_s[0])[:, None] - (np.array(wanted) - scan.stamps[0]) * scan.tick_s)  # (F, T)
        if gaps_s.min(axis=0).max() > 0.51 * scan.duration_s / len(scan.stamps):
            raise Undecodable("TIMELINE_IMPLAUSIBLE", "decord and PyAV do not agree on the times of the pictures")
        for stamp, nearest in zip(wanted, gaps_s.argmin(axis=0), strict=True):
            picture: Picture = reader[int(nearest)].asnumpy()
            if picture.shape[2] != 3:  # decord2 3.4.0 mixes up the bytes of pictures turned by 90 degrees
                yield from by_pyav(container, video, name, scan, wanted, damage)
                return
            damage.decoded += 1
            yield stamp, picture, False
    except (decord.DECORDError, StopIteration, AssertionError) as error:
        raise Undecodable("UNDECODABLE", f"decord: {str(error).strip()[-200:]}") from error


def _import_decord() -> Any:
    """decord2 loads every CUDA library below the `nvidia` package, 640 MB that a CPU build never calls: look away meanwhile."""
    there = sys.modules.get("nvidia")
    sys.modules["nvidia"] = None  # type: ignore[assignment]
    try:
        import decord
    finally:
        if there is None:
            del sys.modules["nvidia"]
        else:
            sys.modules["nvidia"] = there
    return decord


def shrinker(short_side_px: int) -> Callable[[Picture], Picture]:
    """Brings pictures to the size of the first one, its short side at most `short_side_px`."""
    size: tuple[int, int] | None = None

    def shrink(picture: Picture) -> Picture:
        nonlocal size
        height, width = picture.shape[:2]
        scale = min(1.0, short_side_px / min(height, width))
        size = size or (max(1, round(width * scale)), max(1, round(height * scale)))
        if (width, height) == size:
            return picture
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))

    return shrink
