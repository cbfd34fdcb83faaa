from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from orchestrator.errors import Undecodable
from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.vocabulary import Clip, DecodedClip, Split
from tests.media.films import RATE_HZ, X264, number_of, numbered, tone, write_film

Decoder = Literal["decord", "pyav"]
both = pytest.mark.parametrize("decoder", ["pyav", "decord"])
MIDDLES = [2, 6, 9, 13, 17, 21, 24, 28]  # the frames nearest to the middles of eight parts of thirty frames


def decoded(path: Path, decoder: Decoder = "pyav", **settings: Any) -> DecodedClip:
    return decode(Clip("clip", str(path), Split.UNLABELLED, transcript="hello"), DecodeSettings(decoder=decoder, **settings))


def reason(path: Path, **settings: Any) -> str:
    with pytest.raises(Undecodable) as caught:
        decoded(path, **settings)
    return caught.value.code


@both
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("plain.mp4", {}),
        ("intra.mp4", {"options": {**X264, "g": "1"}}),
        ("one_group.mp4", {"options": {**X264, "g": "250", "bf": "8"}}),
        ("fragmented.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("late.ts", {"times": [150_000 + i for i in range(30)], "sound_start_s": 10_000.0}),
        ("b_frames.avi", {"sound_codec": "libmp3lame"}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}, "sound_codec": "libopus", "rate_hz": 48_000}),
    ],
)
def test_frames_are_those_nearest_to_the_wanted_times(tmp_path: Path, decoder: Decoder, name: str, made: Any) -> None:
    clip = decoded(write_film(tmp_path / name, **made), decoder)
    assert [number_of(frame) for frame in clip.frames] == MIDDLES
    assert clip.frame_times_s == pytest.approx(np.array(MIDDLES) / 15, abs=0.01)
    assert len(clip.waveform) == pytest.approx(2 * RATE_HZ, rel=0.06)


@both
def test_a_varying_frame_rate_is_followed_by_time_and_not_by_count(tmp_path: Path, decoder: Decoder) -> None:
    film = write_film(tmp_path / "vfr.mp4", times=[i * i for i in range(30)], rate_fps=Fraction(100), silent=True)
    clip = decoded(film, decoder, frames=4)
    wanted = (np.arange(4) + 0.5) * (29 * 29 + 57) / 4
    assert [number_of(frame) for frame in clip.frames] == [round(np.sqrt(time)) for time in wanted]
    assert "VFR" in clip.flags


@both
def test_jumps_through_a_long_clip_land_on_the_right_frames(tmp_path: Path, decoder: Decoder) -> None:
    film = write_film(tmp_path / "long.mp4", (numbered(i) for i in range(600)), silent=True, options={**X264, "g": "12"})
    assert [number_of(frame) for frame in decoded(film, decoder, frames=6).frames] == [50, 150, 250, 350, 450, 550]


def test_both_decoders_give_the_same_bytes(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    one, other = decoded(film, "pyav", short_side_px=64), decoded(film, "decord", short_side_px=64)
    assert np.array_equal(one.frames, other.frames)
    assert np.array_equal(one.waveform, other.waveform)


@both
@pytest.mark.parametrize(("degrees", "mirrored"), [(0, False), (90, False), (180, False), (270, False)])
def test_turned_pictures_come_upright_once(tmp_path: Path, decoder: Decoder, degrees: int, mirrored: bool) -> None:
    corners = np.zeros((96, 160, 3), np.uint8)
    corners[:48, :80], corners[:48, 80:], corners[48:, :80] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    film = write_film(tmp_path / "turned.mp4", [corners] * 5, silent=True, turn=(degrees, mirrored))
    assert _corner_colours(decoded(film, decoder).frames[0]) == _corner_colours(np.rot90(corners, degrees // 90))


def test_mirrored_pictures_are_mirrored_back(tmp_path: Path) -> None:
    corners = np.zeros((96, 160, 3), np.uint8)
    corners[:48, :80], corners[:48, 80:], corners[48:, :80] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    clip = decoded(write_film(tmp_path / "mirrored.mp4", [corners] * 5, silent=True, turn=(0, True)))
    assert _corner_colours(clip.frames[0]) == _corner_colours(corners[:, ::-1])
    assert "ROTATED" in clip.flags


def _corner_colours(picture: Any) -> list[tuple[bool, ...]]:
    height, width = picture.shape[:2]
    at = [(y * height // 4, x * width // 4) for y in (1, 3) for x in (1, 3)]
    return [tuple(bool(value > 128) for value in picture[y, x]) for y, x in at]


def test_large_pictures_are_shrunk_to_the_short_side(tmp_path: Path) -> None:
    assert decoded(write_film(tmp_path / "film.mp4"), short_side_px=60).frames.shape == (8, 60, 80, 3)


def test_a_clip_without_sound_keeps_its_frames(tmp_path: Path) -> None:
    clip = decoded(write_film(tmp_path / "mute.mp4", silent=True))
    assert len(clip.frames) == 8
    assert len(clip.waveform) == 0
    assert clip.flags == ("NO_AUDIO",)


def test_a_clip_without_picture_keeps_its_sound(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1.0)[None], format="fltp", layout="mono")
        frame.sample_rate = RATE_HZ
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    clip = decoded(tmp_path / "sound.mp4")
    assert len(clip.frames) == 0
    assert len(clip.waveform) == pytest.approx(RATE_HZ, rel=0.1)
    assert clip.flags == ("NO_VIDEO",)


def test_sound_is_mixed_to_mono_at_the_asked_rate(tmp_path: Path) -> None:
    stereo = np.stack([tone(2.0, rate_hz=48_000), np.zeros(96_000, np.float32)])
    clip = decoded(write_film(tmp_path / "stereo.mp4", sound=stereo, rate_hz=48_000, layout="stereo"), rate_hz=8000)
    assert len(clip.waveform) == pytest.approx(16_000, rel=0.05)
    loudest = np.abs(np.fft.rfft(clip.waveform[:16_000])).argmax()
    assert loudest * 8000 / 16_000 == pytest.approx(440, abs=2)


def test_silence_is_sound_and_says_so(tmp_path: Path) -> None:
    clip = decoded(write_film(tmp_path / "silence.mp4", sound=np.zeros(2 * RATE_HZ, np.float32)))
    assert clip.flags == ("SILENT",)
    assert len(clip.waveform) > 0


def test_a_file_cut_off_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", container_options={"movflags": "faststart"})
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    assert reason(film) == "TRUNCATED"


def test_limits_are_kept(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    assert reason(film, max_duration_s=1.0) == "TOO_LONG"
    assert reason(film, max_side_px=100) == "TOO_LARGE_DIM"
    assert reason(film, max_bytes=1000) == "TOO_BIG"


def test_what_the_clip_says_goes_with_its_frames(tmp_path: Path) -> None:
    assert decoded(write_film(tmp_path / "film.mp4")).transcript == "hello"


def test_a_limit_changes_no_identity_and_the_frame_count_does() -> None:
    assert DecodeSettings(timeout_s=3).identity() == DecodeSettings().identity()
    assert DecodeSettings(frames=4).identity() != DecodeSettings().identity()


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"decoder": "opencv"}, {"timeout_s": -1}])
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DecodeSettings(**wrong)
