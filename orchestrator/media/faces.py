"""Pictures to squares around the face, for corpora whose pictures show more than one.

    picture (H, W, 3) ─► grey, short side 240 px ─► Haar cascade (Viola and Jones 2001) ─► largest face, with a margin ─► square

The detector is OpenCV's, whose weights ship in its wheel (version 5 has dropped them). In a picture without a face the last box
of the clip stands, before the first one the centre of the picture; a clip that showed no face at all is flagged "NO_FACE".
"""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]  # (H, W, 3), RGB
PACKAGE = "opencv-python-headless"
_CASCADE = "haarcascade_frontalface_alt2.xml"  # of the four frontal ones the fewest false faces
_LOOKED_AT_PX = 240  # short side: 14 ms a picture; a face a sixth of it wide is found
_MARGIN = 0.25  # of the face's width, on each side: the cascade's box ends at the brows and the chin


def detector() -> str:
    """Which detector there is, for a fingerprint. Raises ValueError when it is not installed."""
    try:
        return f"haar {_CASCADE} of opencv {version(PACKAGE)}"
    except PackageNotFoundError:
        raise ValueError(f"needs OpenCV: pip install 'emotion-orchestrator[faces]' (package {PACKAGE})") from None


class FaceCrop:
    """Crops the pictures of one clip, in order, to `(size_px, size_px, 3)`; `found` counts those that showed a face."""

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self._box: tuple[float, float, float] | None = None  # centre and side, as shares of width, height and width
        self.found = 0

    def __call__(self, picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        face = largest_face(picture)
        if face is not None:
            left, top, side = face
            self.found += 1
            self._box = (left + side / 2) / width, (top + side / 2) / height, side * (1 + 2 * _MARGIN) / width
        across, down, share = self._box or (0.5, 0.5, min(height, width) / width)
        side = min(round(share * width), height, width)
        left = int(np.clip(round(across * width - side / 2), 0, width - side))
        top = int(np.clip(round(down * height - side / 2), 0, height - side))
        square = Image.fromarray(picture[top : top + side, left : left + side])
        return np.asarray(square.resize((self._size_px, self._size_px), Image.Resampling.BICUBIC))


def largest_face(picture: Picture) -> tuple[float, float, float] | None:
    """Left, top and side in pixels of the largest face; None when there is none."""
    height, width = picture.shape[:2]
    scale = min(1.0, _LOOKED_AT_PX / min(height, width))
    small = Image.fromarray(picture).convert("L").resize((max(1, round(width * scale)), max(1, round(height * scale))))
    smallest = max(20, min(small.size) // 6)
    boxes = _cascade().detectMultiScale(np.asarray(small), scaleFactor=1.1, minNeighbors=4, minSize=(smallest, smallest))
    if not len(boxes):
        return None
    left, top, across, _ = max(boxes.tolist(), key=lambda box: (box[2], box))
    return left / scale, top / scale, across / scale


@functools.cache
def _cascade() -> Any:
    import cv2  # here: 40 MB that a decode child without faces need not carry

    cv2.setNumThreads(1)
    found = cv2.CascadeClassifier(str(files("cv2") / "data" / _CASCADE))
    assert not found.empty(), f"{PACKAGE} ships {_CASCADE}"
    return found
