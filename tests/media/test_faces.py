"""The detector finds a drawn face when it is drawn as real ones look: dark brows and eyes, light nose and cheeks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.media.faces import FaceCrop, largest_face
from orchestrator.media.toy import write_toy_corpus
from orchestrator.vocabulary import Clip, Split


def face(width: int, height: int, centre: tuple[int, int], side: int) -> np.ndarray:
    """A grey picture with one face, `side` pixels wide."""
    picture = Image.new("RGB", (width, height), (90, 90, 90))
    draw = ImageDraw.Draw(picture)

    def oval(x: float, y: float, across: float, down: float, grey: int) -> None:
        left, top = centre[0] + side * (x - across / 2), centre[1] + side * (y - down / 2)
        draw.ellipse([left, top, left + side * across, top + side * down], fill=(grey, grey, grey))

    oval(0, 0.05, 0.95, 1.3, 190)
    for x in (-0.2, 0.2):
        oval(x, -0.22, 0.3, 0.08, 70)  # brow
        oval(x, -0.1, 0.22, 0.13, 60)  # eye
        oval(x, 0.1, 0.24, 0.16, 215)  # cheek
    oval(0, 0.02, 0.12, 0.3, 225)
    oval(0, 0.16, 0.2, 0.06, 130)
    oval(0, 0.33, 0.36, 0.09, 100)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(side / 40)))


def test_a_face_is_found_where_it_is_and_fills_the_square() -> None:
    for centre in ((110, 120), (420, 150)):
        picture = face(560, 300, centre, 120)
        found = largest_face(picture)
        assert found is not None
        left, top, side = found
        assert abs(left + side / 2 - centre[0]) < 20
        assert abs(top + side / 2 - centre[1]) < 25
        crop = FaceCrop(96)
        square = crop(picture)
        assert square.shape == (96, 96, 3)
        assert crop.found == 1
        again = largest_face(np.asarray(Image.fromarray(square).resize((240, 240))))
        assert again is not None
        assert again[2] > 0.5 * 240


def test_without_a_face_the_last_box_stands_and_before_the_first_the_centre() -> None:
    crop = FaceCrop(64)
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 255  # the middle square
    assert crop(wide).min() > 200
    assert crop.found == 0
    seen = crop(face(560, 300, (420, 150), 120))
    blank = np.full((300, 560, 3), 90, np.uint8)
    blank[:, 340:500] = 200
    assert crop(blank).mean() > 150  # where the face was, not the middle
    assert crop.found == 1
    assert seen.shape == (64, 64, 3)


def test_the_choice_is_in_the_fingerprint_of_pictures_and_flags_a_clip_without_a_face(tmp_path: Path) -> None:
    plain, cropped = DecodeSettings(frames=2), DecodeSettings(frames=2, faces="haar")
    assert plain.identity() != cropped.identity()
    assert plain.identity(sound_only=True) == cropped.identity(sound_only=True)
    assert "opencv" in str(cropped.identity()["faces"])
    flagged = set()
    for film in sorted(write_toy_corpus(tmp_path, clips=12, seed=0).parent.rglob("*.mp4")):
        whole, squares = (decode(Clip(film.stem, str(film), Split.UNLABELLED), settings) for settings in (plain, cropped))
        assert squares.frames.shape == (2, 224, 224, 3)
        assert ("NO_FACE" in squares.flags) is all(largest_face(picture) is None for picture in whole.frames)
        assert "NO_FACE" not in whole.flags
        flagged.add("NO_FACE" in squares.flags)
    assert flagged == {True, False}


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decode\.faces"):
        DecodeSettings(faces="mtcnn")  # type: ignore[arg-type]
