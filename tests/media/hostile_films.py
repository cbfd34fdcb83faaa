"""The films of the hostile corpus, by class.

A odd but healthy · B no regular file · C other content · D cut off · E damaged · F lies of structure · G bombs · H references ·
I odd sound
"""

from __future__ import annotations

import gzip
import io
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.media.boxes import HEADER, boxes, find, payload, put, put_in
from tests.media.films import HEIGHT, RATE_HZ, WIDTH, X264, numbered, tone, write_film
from tests.media.hostile_corpus import MIDDLES, Film, Place

Edit = Callable[[bytes], bytes]
SOFT = ("ok", "ok+DAMAGED")  # a film whose damage may hit nothing that is looked at
CUT = ("TRUNCATED", "CORRUPT_FRAMES", "UNDECODABLE")
LIED = (
    "TRUNCATED",
    "TIMELINE_IMPLAUSIBLE",
    "UNDECODABLE",
    "CORRUPT_FRAMES",
    "TOO_LONG",
    "TOO_LARGE_DIM",
    "NO_VIDEO",
    "DECODE_MEM",
)


def made(name: str, **settings: Any) -> Callable[[Path, Place], Path]:
    """A film written by PyAV."""
    return lambda folder, where: write_film(folder / name, **settings)


def edited(base: str, edit: Edit, name: str = "film.mp4") -> Callable[[Path, Place], Path]:
    """A sound film with bytes changed."""

    def make(folder: Path, where: Place) -> Path:
        (folder / name).write_bytes(edit(where.films[base]))
        return folder / name

    return make


def written(content: bytes | str, name: str = "film.mp4") -> Callable[[Path, Place], Path]:
    """Bytes that are no film; `{port}` and `{canary}` are filled in."""

    def make(folder: Path, where: Place) -> Path:
        data = (
            content.format(port=where.port, canary=where.canary, ts=where.canary.with_suffix(".ts"))
            if isinstance(content, str)
            else content
        )
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder / name

    return make


def _healthy() -> Iterator[Film]:
    plain: dict[str, Any] = {
        "h264.mp4": {},
        "h264.mov": {},
        "h264.mkv": {},
        "h264.ts": {},
        "h264.avi": {"sound_codec": "libmp3lame"},
        "fragmented.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
        "hevc.mp4": {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}},
        "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}, "sound_codec": "libopus", "rate_hz": 48_000},
        "mpeg4.mp4": {"codec": "mpeg4", "options": {"qscale": "3"}},
        "mjpeg.mov": {"codec": "mjpeg", "options": {"qscale": "3"}, "pixels": "yuvj420p"},
        "ffv1.mkv": {"codec": "ffv1", "options": {}},
        "prores.mov": {"codec": "prores_ks", "options": {}, "pixels": "yuv422p10le"},
        "ten bits.mkv": {"pixels": "yuv420p10le"},
        "colour at full size.mkv": {"pixels": "yuv444p"},
        "grey.mkv": {"pixels": "gray"},
        "intra.mp4": {"options": {**X264, "g": "1"}},
        "one group.mp4": {"options": {**X264, "g": "250", "bf": "8"}},
        "open groups.mp4": {"options": {**X264, "g": "8", "bf": "3", "x264-params": "open-gop=1"}},
        "late.ts": {"times": [150_000 + i for i in range(30)], "sound_start_s": 10_000.0},
        "late.mkv": {"times": [1500 + i for i in range(30)], "sound_start_s": 100.0},
        "240 a second.mp4": {"rate_fps": 240, "sound": tone(0.125)},
        "one in ten seconds.mp4": {"rate_fps": Fraction(1, 10), "silent": True},
        "space and ünïcode.mp4": {},
        "$(touch pwned);`id`.mp4": {},
        "-dash.mp4": {},
        "n" * 251 + ".mp4": {},
        "100%d.mp4": {},
        "[a-z]*?.mp4": {},
    }
    for name, settings in plain.items():
        flags = "ok+NO_AUDIO" if settings.get("silent") else "ok"
        yield Film(f"A {name[:40]}", made(name, **settings), (flags,))
    yield Film("A av1.mp4", made("av1.mp4", codec="libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"}), ("ok",))
    yield Film("A one frame.mp4", made("one.mp4", pictures=[numbered(0)], silent=True), ("ok+NO_AUDIO",), (0,) * 8)
    squares = tuple(round(np.sqrt((i + 0.5) * 112.25)) for i in range(8))
    vfr = made("vfr.mp4", times=[i * i for i in range(30)], rate_fps=100, sound=tone(9.0))
    yield Film("A varying rate.mp4", vfr, ("ok+VFR",), squares)
    for degrees in (90, 180, 270):
        yield Film(f"A turned {degrees}.mp4", made("t.mp4", turn=(degrees, False)), ("ok+ROTATED", "ok"), None)
    yield Film("A mirrored.mp4", made("m.mp4", turn=(0, True)), ("ok+ROTATED", "ok"), None)
    yield Film("A two tracks each.mp4", made("t.mp4", tracks=2), ("ok+MULTI_STREAM",))
    odd = [numbered(i, width=171, height=97) for i in range(30)]
    yield Film("A odd size.mkv", made("o.mkv", pictures=odd, codec="ffv1", options={}), ("ok",), None)
    yield Film("A metadata.mp4", made("t.mp4", metadata={"title": "x" * 5000, "comment": "\u202e<script>"}), ("ok",))
    yield Film("A starts at a hidden frame.mp4", edited("mute", _hide_half), ("ok+EDITED+NO_AUDIO", "ok+NO_AUDIO"), None)


def _hide_half(data: bytes) -> bytes:
    """An edit list that begins in the middle of the film."""
    half = struct.unpack(">I", data[(at := find(data, "mdhd") + HEADER + 12) + 4 : at + 8])[0] // 2
    return put_in(data, "elst", 12, "I", half)


def _not_regular() -> Iterator[Film]:
    def fifo(folder: Path, where: Place) -> Path:
        os.mkfifo(folder / "film.mp4")
        return folder / "film.mp4"

    def directory(folder: Path, where: Place) -> Path:
        (folder / "film.mp4").mkdir()
        return folder / "film.mp4"

    def bound(folder: Path, where: Place) -> Path:
        with socket.socket(socket.AF_UNIX) as end:
            home = os.getcwd()
            os.chdir(folder)  # names of sockets are short
            end.bind("film.mp4")
            os.chdir(home)
        return folder / "film.mp4"

    def link(target: str, hard: bool = False) -> Callable[[Path, Place], Path]:
        def make(folder: Path, where: Place) -> Path:
            aim = target.format(canary=where.canary, root=where.root)
            (os.link if hard else os.symlink)(aim, folder / "film.mp4")
            return folder / "film.mp4"

        return make

    def inner_link(folder: Path, where: Place) -> Path:
        (folder / "real.mp4").write_bytes(where.films["mp4"])
        (folder / "film.mp4").symlink_to("real.mp4")
        return folder / "film.mp4"

    def by_linked_folder(folder: Path, where: Place) -> Path:
        (folder / "sub").symlink_to(where.canary.parent)
        return folder / "sub" / "canary.mp4"

    def sparse(folder: Path, where: Place) -> Path:
        with (folder / "film.mp4").open("wb") as file:
            file.write(where.films["mp4"])
            file.truncate(100 << 30)
        return folder / "film.mp4"

    yield Film("B empty", written(b""), ("EMPTY",))
    yield Film("B one byte", written(b"\0"), ("BAD_MAGIC",))
    yield Film("B directory", directory, ("NOT_REGULAR",))
    yield Film("B fifo", fifo, ("NOT_REGULAR",))
    yield Film("B socket", bound, ("NOT_REGULAR",))
    yield Film("B link to a device", link("/dev/zero"), ("OUTSIDE_ROOT",))
    yield Film("B device", lambda folder, where: "/dev/zero", ("OUTSIDE_ROOT",))
    yield Film("B link out of the root", link("{canary}"), ("OUTSIDE_ROOT",))
    yield Film("B folder linked out of the root", by_linked_folder, ("OUTSIDE_ROOT",))
    yield Film("B link within the root", inner_link, ("ok",))
    yield Film("B loop of links", link("film.mp4"), ("IO_ERROR",))
    yield Film("B dangling link", link("{root}/nowhere.mp4"), ("IO_ERROR",))
    yield Film("B missing", lambda folder, where: folder / "film.mp4", ("IO_ERROR",))
    yield Film("B name of 5000 letters", lambda folder, where: folder / ("x/" * 2500), ("IO_ERROR",))
    yield Film("B 100 GB of nothing", sparse, ("TOO_BIG",))


def _other_content() -> Iterator[Film]:
    rng = np.random.default_rng(16)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("film.mp4", "no")
    contents: dict[str, bytes] = {
        "text": b"hello, this is a text\n" * 50,
        "html": b"<!doctype html><script>alert(1)</script>" * 20,
        "zip": zipped.getvalue(),
        "noise": rng.bytes(4096),
        "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF" + rng.bytes(500),
        "png": b"\x89PNG\r\n\x1a\n" + rng.bytes(500),
        "gif": b"GIF89a" + rng.bytes(500),
        "pdf": b"%PDF-1.7\n" + rng.bytes(500),
        "program": b"\x7fELF\x02\x01\x01" + rng.bytes(500),
        "wav": b"RIFF\x24\0\0\0WAVEfmt " + rng.bytes(500),
        "mp3": b"ID3\x04" + rng.bytes(500),
        "flv": b"FLV\x01\x05\0\0\0\x09" + rng.bytes(500),
    }
    for name, content in contents.items():
        yield Film(f"C {name}", written(content), ("BAD_MAGIC",))
    yield Film("C ftyp alone", written(b"\0\0\0\x18ftypisom\0\0\2\0isommp41"), ("UNDECODABLE", "NO_VIDEO"))
    yield Film("C ftyp and noise", written(b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + rng.bytes(2000)), LIED)
    yield Film("C ebml alone", written(b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska"), LIED)
    yield Film("C riff alone", written(b"RIFF\xff\xff\xff\x7fAVI LIST" + rng.bytes(2000)), LIED)
    yield Film("C sync bytes alone", written((b"G" + rng.bytes(187)) * 40), LIED)
    yield Film("C gzip of a film", edited("mp4", gzip.compress), ("BAD_MAGIC",))
    yield Film("C film behind 64 KB of noise", edited("mp4", lambda data: rng.bytes(65536) + data), ("BAD_MAGIC",))
    yield Film("C film and archive in one", edited("mp4", lambda data: data + zipped.getvalue()), ("ok",))


def _cut_off() -> Iterator[Film]:
    for base, name in (("mp4", "film.mp4"), ("fast", "film.mp4"), ("mkv", "film.mkv"), ("ts", "film.ts")):
        for percent in (10, 25, 50, 75, 90, 99):
            expected: tuple[str, ...] = CUT
            if base == "mp4":
                expected = ("UNDECODABLE",)  # its index is at the end
            elif base == "ts" or percent >= 90:
                expected = (*CUT, "ok*")  # MPEG-TS declares no length; of the others a tenth may be missing
            cut = partial(lambda data, share: data[: len(data) * share // 100], share=percent)
            numbers = MIDDLES if base != "ts" and percent < 90 else None
            yield Film(f"D {base} at {percent} %", edited(base, cut, name), expected, numbers)


def _flipped(data: bytes, count: int, seed: int, span: tuple[int, int] | None = None, width: int = 1) -> bytes:
    rng = np.random.default_rng([count, seed])
    start, end = span or payload(data)
    changed = bytearray(data)
    for at in rng.integers(start, end - width, count):
        for i in range(width):
            changed[at + i] ^= int(rng.integers(1, 256)) if width > 1 else 1 << int(rng.integers(8))
    return bytes(changed)


def _damaged() -> Iterator[Film]:
    for count in (1, 10, 40, 400):
        for seed in range(7):
            flip = partial(_flipped, count=count, seed=seed)
            expected = (*SOFT, *CUT) if count == 1 else ("ok+DAMAGED", *CUT)
            yield Film(f"E {count} bits, seed {seed}", edited("mp4", flip), expected, None)

    def blank(data: bytes) -> bytes:
        start, end = payload(data)
        return data[:start] + bytes(end - start) + data[end:]

    def swapped(data: bytes) -> bytes:
        start, end = payload(data)
        third = (end - start) // 3
        return data[:start] + data[start + third : start + 2 * third] + data[start : start + third] + data[start + 2 * third :]

    def unit_length(value: int) -> Edit:
        return lambda data: put(data, payload(data)[0], "I", value)

    def without_parameters(data: bytes) -> bytes:
        at = data.index(b"avcC") + 4
        return data[: at + 8] + bytes(20) + data[at + 28 :]

    yield Film("E payload of zeros", edited("mp4", blank), CUT)
    yield Film("E payload in another order", edited("mp4", swapped), CUT)
    yield Film("E unit of no length", edited("mute", unit_length(0)), ("ok+DAMAGED+NO_AUDIO", *CUT, *SOFT, "ok+NO_AUDIO"), None)
    yield Film("E unit of 2 GB", edited("mute", unit_length(2**31 - 1)), ("ok+DAMAGED+NO_AUDIO", *CUT), None)
    yield Film("E parameter sets gone", edited("mute", without_parameters), CUT)
    yield Film("E first third blank", edited("mute", _blank_third), ("ok+DAMAGED+NO_AUDIO", *CUT), None)


def _blank_third(data: bytes) -> bytes:
    start, end = payload(data)
    third = (end - start) // 3
    return data[:start] + bytes(third) + data[start + third :]


def _lies() -> Iterator[Film]:
    top = 2**32 - 1
    fields: dict[str, tuple[str, int, str, tuple[int, ...]]] = {
        "two pictures in the size table": ("stsz", 8, "I", (2,)),
        "100,000 pictures in the size table": ("stsz", 8, "I", (100_000,)),
        "all pictures one size": ("stsz", 4, "I", (1,)),
        "more sizes than memory": ("stsz", 8, "I", (top,)),
        "431 pictures of 30": ("stsz", 8, "I", (43,)),
        "picture of 4 GB": ("stsz", 12, "I", (top,)),
        "no time between pictures": ("stts", 12, "I", (0,)),
        "ages between pictures": ("stts", 12, "I", (2**31 - 1,)),
        "negative time between pictures": ("stts", 12, "I", (top,)),
        "time table of 2^32 rows": ("stts", 4, "I", (top,)),
        "no time scale": ("mdhd", 12, "I", (0,)),
        "time scale of 2^32": ("mdhd", 12, "I", (top,)),
        "lasts for ages": ("mdhd", 16, "I", (top,)),
        "film lasts for ages": ("mvhd", 16, "I", (top,)),
        "65535 pixels": ("stsd", 8 + 8 + 24, "HH", (65_535, 65_535)),
        "no pixels": ("stsd", 8 + 8 + 24, "HH", (0, 0)),
        "chunks past the end": ("stco", 8, "I", (top,)),
        "chunks at the beginning": ("stco", 8, "I", (0,)),
        "chunk table of 2^32 rows": ("stco", 4, "I", (top,)),
        "samples per chunk 2^32": ("stsc", 12, "I", (top,)),
        "offsets of ages": ("ctts", 12, "I", (2**31 - 1,)),
        "pictures called sound": ("hdlr", 8, "I", (0x736F756E,)),
        "index of no size": ("moov", -8, "I", (0,)),
        "index of one byte": ("moov", -8, "I", (1,)),
        "index of 4 GB": ("moov", -8, "I", (top,)),
        "edit before the beginning": ("elst", 12, "i", (-2_000_000_000,)),
        "edit behind the end": ("elst", 12, "i", (2_000_000_000,)),
        "edit of no rate": ("elst", 16, "I", (0,)),
        "more edits than memory": ("elst", 4, "I", (top,)),
        "protected": ("stsd", 8 + 4, "I", (0x656E6376,)),
        "unknown codec": ("stsd", 8 + 4, "I", (0x58585858,)),
    }
    for name, (box, field, form, values) in fields.items():
        yield Film(f"F {name}", edited("mute", partial(_lie, box, field, form, values)), (*LIED, "ok*"), _numbers(name))
    for seed in range(12):
        lie = partial(_flip_index, seed=seed)
        yield Film(f"F six bytes of the index, seed {seed}", edited("mp4", lie), (*LIED, "ok*"), None)
    nested = b"".join(struct.pack(">I4s", 8 * (2000 - i), b"moov") for i in range(2000))
    yield Film("F two thousand boxes deep", edited("mp4", lambda data: data[:32] + nested), LIED)
    yield Film("F segment of unknown size.mkv", edited("mkv", _unknown_size, "film.mkv"), ("ok", *LIED), None)
    yield Film("F video 2^56 wide.mkv", edited("mkv", _mkv_width, "film.mkv"), LIED, None)
    yield Film("F index of lies.avi", edited("avi", _avi_index, "film.avi"), (*LIED, *SOFT), None)


def _numbers(name: str) -> tuple[int, ...] | None:
    return None if name.startswith(("edit", "more edits", "chunks at")) else MIDDLES


def _lie(box: str, field: int, form: str, values: tuple[int, ...], data: bytes) -> bytes:
    return put_in(data, box, field, form, *values)


def _flip_index(data: bytes, seed: int) -> bytes:
    ((start, size),) = [(offset, size) for path, offset, size in boxes(data) if path == "moov"]
    return _flipped(data, 1, 100 + seed, (start + HEADER, start + size), width=6)


def _unknown_size(data: bytes) -> bytes:
    at = data.index(b"\x18\x53\x80\x67") + 4
    return data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]


def _mkv_width(data: bytes) -> bytes:
    at = data.index(b"\xb0\x81\xa0")  # PixelWidth, one byte, 160
    return data[:at] + b"\xb0\x81\x00" + data[at + 3 :]


def _avi_index(data: bytes) -> bytes:
    at = data.index(b"idx1") + 8
    return data[:at] + _flipped(data[at:], 40, 0, (0, len(data) - at))


def _bombs() -> Iterator[Film]:
    def sized(width: int, height: int, codec: str = "mpeg4") -> Callable[[Path, Place], Path]:
        grey = np.full((height, width, 3), 90, np.uint8)
        options = {} if codec != "libx264" else {"preset": "ultrafast", "threads": "1"}
        return made("film.mkv", pictures=[grey] * 2, codec=codec, options=options, silent=True)

    def repeated(count: int, size: int, rate_fps: int = 25, *, keys: bool = False) -> Callable[[Path, Place], Path]:
        """A grey picture, then the packet that says "the same again", or the picture itself: small to store, work to decode."""

        def make(folder: Path, where: Place) -> Path:
            with av.open(str(folder / "film.mp4"), "w") as container:
                video = container.add_stream("mpeg4", rate=rate_fps)
                video.width = video.height = size
                picture = av.VideoFrame.from_ndarray(np.full((size, size, 3), 90, np.uint8), format="rgb24")
                first, again = (packet for _ in range(2) for packet in video.encode(picture))
                for i in range(count):
                    copy = av.Packet(bytes(first if keys or i == 0 else again))
                    copy.stream, copy.time_base = video, Fraction(1, rate_fps)
                    copy.pts = copy.dts = i
                    copy.is_keyframe = keys or i == 0
                    container.mux(copy)
            return folder / "film.mp4"

        return make

    def tracks(count: int) -> Callable[[Path, Place], Path]:
        few = [numbered(i) for i in range(4)]
        return made("film.mkv", pictures=few, codec="mpeg4", options={}, silent=True, tracks=count)

    yield Film("G 7680 x 4320", sized(7680, 4320), ("TOO_LARGE_DIM",))
    yield Film("G 8000 x 16", sized(8000, 16), ("TOO_LARGE_DIM",))
    yield Film("G 16 x 8000", sized(16, 8000), ("TOO_LARGE_DIM",))
    yield Film("G 4096 x 2160", sized(4096, 2160), ("ok+NO_AUDIO",), None)
    yield Film("G 1 x 1", sized(1, 1, "ffv1"), ("ok+NO_AUDIO",), None)
    yield Film("G 2 x 2", sized(2, 2, "ffv1"), ("ok+NO_AUDIO",), None)
    yield Film("G an hour", repeated(3600, 32, rate_fps=1), ("TOO_LONG",))
    yield Film("G 10,000 a second", repeated(3000, 32, rate_fps=10_000), ("TIMELINE_IMPLAUSIBLE",))
    yield Film("G much work", repeated(3000, 4096), ("DECODE_TIMEOUT", "DECODE_MEM", "UNDECODABLE"))
    yield Film("G 10,000 pictures", repeated(10_000, 32, rate_fps=100, keys=True), ("ok+NO_AUDIO",), None)
    yield Film("G 60 tracks", tracks(60), ("ok+MULTI_STREAM+NO_AUDIO",), None)
    yield Film("G tag of 20 MB", made("film.mkv", metadata={"comment": "x" * 20_000_000}), ("ok*", "DECODE_MEM"), None)
    yield Film("G noise", made("film.mkv", pictures=list(_noise()), codec="ffv1", options={}), ("ok",), None)


def _noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), np.uint8)


def _references() -> Iterator[Film]:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n"
    texts = {
        "playlist of a file": playlist.replace("{url}", "file://{ts}"),
        "playlist of a path": playlist.replace("{url}", "{ts}"),
        "playlist of an address": playlist.replace("{url}", "http://127.0.0.1:{port}/x.ts"),
        "playlist with a key": playlist.replace("{url}", "{ts}").replace(
            "#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="http://127.0.0.1:{port}/k"\n#EXTINF'
        ),
        "list of films": "ffconcat version 1.0\nfile '{canary}'\n",
        "session description": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "dash": '<?xml version="1.0"?><MPD><Period><BaseURL>http://127.0.0.1:{port}/</BaseURL></Period></MPD>',
    }
    for name, text in texts.items():
        yield Film(f"H {name}", written(text), ("BAD_MAGIC",))
    yield Film("H playlist named so", written(texts["playlist of a file"], "film.m3u8"), ("BAD_MAGIC",))
    disguised = "v=0\nfree\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n"
    yield Film("H session description in disguise", written(disguised), LIED)
    yield Film("H playlist behind ftyp", written("\0\0\0\x18ftypisom\0\0\2\0isommp41" + texts["playlist of a file"]), LIED)
    yield Film("H data elsewhere", edited("mute", _external_data), (*LIED, "ok+NO_AUDIO"), MIDDLES)
    names = {
        "address": "http://127.0.0.1:{port}/x.mp4",
        "concat": "concat:{canary}|{canary}",
        "subfile": "subfile,,start,0,end,0,,:{canary}",
        "hls+file": "hls+file://{ts}",
        "crypto": "crypto:{canary}",
        "data": "data:video/mp4;base64,AAAA",
        "pipe": "pipe:0",
        "dash": "-",
        "file": "file:{canary}",
        "file address": "file://{canary}",
        "relative": "../canary.mp4",
        "nothing": "",
        "NUL": "/tmp/a\0b.mp4",
    }
    for name, text in names.items():
        named = partial(_named, text=text)
        yield Film(f"H path {name}", named, ("BAD_SCHEME",))
    yield Film("H path out of the root", partial(_named, text="{root}/../canary.mp4"), ("OUTSIDE_ROOT",))
    yield Film("H path in proc", partial(_named, text="/proc/self/root{canary}"), ("OUTSIDE_ROOT",))


def _named(folder: Path, where: Place, text: str) -> str:
    return text.format(port=where.port, canary=where.canary, ts=where.canary.with_suffix(".ts"), root=where.root)


def _external_data(data: bytes) -> bytes:
    """The film's own data called external: flag of its `url ` entry off."""
    return put_in(data, "dref", 8 + 8, "I", 0)


def _odd_sound() -> Iterator[Film]:
    def film(name: str, expected: str | tuple[str, ...], **settings: Any) -> Film:
        outcomes = (expected,) if isinstance(expected, str) else expected
        return Film(f"I {name}", made(name.split(": ")[-1], **settings), outcomes)

    second = tone(2.0)
    nan = second.copy()
    nan[::3] = np.nan
    six = np.stack([tone(2.0, hz=110 * (i + 1), rate_hz=48_000) for i in range(6)])
    half = tone(2.0, rate_hz=48_000)
    yield film("none: film.mp4", "ok+NO_AUDIO", silent=True)
    yield film("silence: film.mp4", "ok+SILENT", sound=np.zeros(2 * RATE_HZ, np.float32))
    yield film("clipped: film.mp4", "ok", sound=np.sign(second))
    yield film("constant: film.mp4", "ok", sound=np.full(2 * RATE_HZ, 0.5, np.float32))
    yield film("not a number: film.mov", "CORRUPT_FRAMES", sound=nan, sound_codec="pcm_f32le")
    yield film("infinite: film.mov", "CORRUPT_FRAMES", sound=np.copysign(np.float32(np.inf), second), sound_codec="pcm_f32le")
    yield film("192 kHz: film.mov", "ok", sound=tone(2.0, rate_hz=192_000), sound_codec="pcm_s16le", rate_hz=192_000)
    yield film("8 kHz: film.mp4", "ok", sound=tone(2.0, rate_hz=8000), rate_hz=8000)
    yield film("five and one: film.mp4", "ok", sound=six, rate_hz=48_000, layout="5.1")
    yield film("in opposite phase: film.mp4", ("ok", "ok+SILENT"), sound=np.stack([half, -half]), rate_hz=48_000, layout="stereo")
    yield film("10 ms: film.mp4", ("ok+AV_MISMATCH", "ok"), sound=tone(0.01))
    yield film("longer than the film: film.mp4", "ok+AV_MISMATCH", sound=tone(6.0))
    yield film("shorter than the film: film.mp4", "ok+AV_MISMATCH", sound=tone(0.5))
    yield film("late: film.mp4", ("ok", "ok+AV_MISMATCH"), sound=tone(1.0), sound_start_s=1.0)
    yield film("mp3: film.mkv", "ok", sound_codec="libmp3lame")
    yield film("ac3: film.mkv", "ok", sound=half, sound_codec="ac3", rate_hz=48_000)
    yield film("flac: film.mkv", "ok", sound_codec="flac")
    yield film("without pictures: film.mp4", ("ok+NO_VIDEO", "UNDECODABLE"), pictures=[])


FILMS: tuple[Film, ...] = (
    *_healthy(),
    *_not_regular(),
    *_other_content(),
    *_cut_off(),
    *_damaged(),
    *_lies(),
    *_bombs(),
    *_references(),
    *_odd_sound(),
)
