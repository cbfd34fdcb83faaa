"""A toy corpus: drawn, animated faces, synthesised voices and lines of text, written as h264 + aac.

It has the shape of the real thing: several speakers with their own faces and voices, unseen speakers in the test split, few
labels. The face, the voice and the line of a clip each show another emotion than the clip's in a share of the clips, apart from
one another, so that no single modality suffices. Everything follows from the seed; nothing is committed.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from uuid import uuid4

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageDraw

VERSION = 2  # of the drawing: a corpus of another one is not reused
SIZE_PX, RATE_FPS, RATE_HZ, DURATION_S = 112, 8, 16_000, 2.0
EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
MISLEADS = 0.18  # share of clips in which a modality shows another emotion
SPEAKERS, TEST_SPEAKERS = 8, 2
LABELLED = 0.35  # share of the clips of training speakers

LINES = {
    "neutral": ("The meeting starts at {n}.", "Put the box on the table.", "It is {n} o'clock now.", "The bus stops here."),
    "angry": ("Stop doing that right now!", "I told you {n} times!", "How dare you say that!", "Get out of my room!"),
    "happy": ("This is wonderful, I love it!", "We won by {n} points, great!", "What a lovely day!", "I am so glad you came!"),
    "sad": ("I miss her so much.", "He has been gone for {n} years.", "I lost everything.", "Nobody came, I am alone."),
    "worried": (
        "What if something goes wrong?",
        "I hope they are safe.",
        "It is {n} already, where is he?",
        "Are you sure about this?",
    ),
    "surprise": ("Oh my, I did not expect that!", "Wow, {n} of them, really?", "What, you are here?", "No way, is this true?"),
}
# mouth: curve (up is a smile), openness; brow: height, tilt (down inside is a frown); eye: openness
FACES = {
    "neutral": (0.0, 0.10, 0.0, 0.0, 0.55),
    "angry": (-0.5, 0.15, -0.5, 0.9, 0.45),
    "happy": (1.0, 0.30, 0.1, 0.0, 0.45),
    "sad": (-0.8, 0.05, 0.1, -0.8, 0.40),
    "worried": (-0.35, 0.20, 0.4, -0.6, 0.75),
    "surprise": (0.0, 0.90, 0.9, 0.0, 1.0),
}
# pitch factor, pitch slope over the clip, jitter, loudness, syllables a second, brightness of the timbre
VOICES = {
    "neutral": (1.0, 0.0, 0.01, 0.5, 3.5, 0.5),
    "angry": (1.25, 0.1, 0.06, 0.95, 5.0, 0.95),
    "happy": (1.4, 0.3, 0.03, 0.75, 4.5, 0.7),
    "sad": (0.85, -0.25, 0.02, 0.3, 2.2, 0.25),
    "worried": (1.15, 0.1, 0.09, 0.4, 4.2, 0.4),
    "surprise": (1.6, 0.8, 0.02, 0.8, 3.0, 0.8),
}


@dataclass(frozen=True, slots=True)
class Speaker:
    """How one person looks and sounds."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    width: float
    eyes: float
    pitch_hz: float
    formant: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Speaker:
        """A person at random."""
        tone = rng.uniform(0.35, 1.0)
        skin = tuple(int(tone * value) for value in (240, 200, 170))
        hair = tuple(int(value) for value in rng.integers(10, 160, 3))
        return cls(skin, hair, rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.2), rng.uniform(100, 230), rng.uniform(0.88, 1.15))  # type: ignore[arg-type]


def draw_face(
    speaker: Speaker, emotion: str, rng: np.random.Generator, *, phase: float = 0.0, size_px: int = SIZE_PX
) -> NDArray[np.uint8]:
    """One picture `(size_px, size_px, 3)` of a speaker showing an emotion; `phase` in [0, 1) is the moment of the animation."""
    curve, openness, brow, tilt, eye = np.array(FACES[emotion]) * rng.uniform(0.75, 1.15) + rng.normal(0, 0.05, 5)
    talk = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * phase)
    openness = max(0.03, openness * (0.7 + 0.5 * talk))
    scale = 3  # drawn larger and shrunk: smooth lines
    canvas = Image.new("RGB", (size_px * scale,) * 2, tuple(int(v) for v in rng.integers(60, 200, 3)))
    pen = ImageDraw.Draw(canvas)
    unit = size_px * scale * 0.36
    x0 = size_px * scale * (0.5 + 0.03 * np.sin(2 * np.pi * phase))
    y0 = size_px * scale * 0.52
    _ellipse(pen, x0, y0 - 0.12 * unit, 1.05 * unit * speaker.width, 1.2 * unit, speaker.hair)
    _ellipse(pen, x0, y0, 0.95 * unit * speaker.width, 1.12 * unit, speaker.skin)
    for side in (-1, 1):
        x = x0 + side * 0.38 * unit
        y = y0 - 0.2 * unit
        _ellipse(pen, x, y, 0.17 * unit * speaker.eyes, max(0.03, 0.2 * eye) * unit * speaker.eyes, (250, 250, 250))
        _ellipse(pen, x, y, 0.07 * unit, min(0.09, max(0.03, 0.2 * eye)) * unit, (30, 30, 40))
        lift = y - (0.3 + 0.14 * brow) * unit
        inner, outer = lift + 0.14 * tilt * unit, lift - 0.1 * tilt * unit
        pen.line([(x - side * 0.2 * unit, inner), (x + side * 0.2 * unit, outer)], fill=speaker.hair, width=int(0.07 * unit))
    _mouth(pen, x0, y0 + 0.52 * unit, unit, float(curve), float(openness))
    return np.asarray(canvas.resize((size_px, size_px), Image.Resampling.BOX))


def synthesise_voice(
    speaker: Speaker, emotion: str, rng: np.random.Generator, *, duration_s: float = DURATION_S
) -> NDArray[np.float32]:
    """A voice-like waveform `(S,)` at `RATE_HZ`: harmonics of a moving pitch through two formants, in syllables."""
    factor, slope, jitter, loudness, tempo, bright = np.array(VOICES[emotion]) * rng.uniform(0.88, 1.12, 6)
    t = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    wobble = np.interp(t, np.linspace(0, duration_s, 40), rng.normal(0, jitter, 40))
    pitch = speaker.pitch_hz * factor * (1 + slope * (t / duration_s - 0.5) + wobble)
    angle = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    voice = np.zeros_like(t)
    for harmonic in range(1, 25):
        frequency = harmonic * pitch
        resonance = sum(np.exp(-(((frequency - centre * speaker.formant) / 250) ** 2)) for centre in (600, 1500, 2600))
        voice += (0.15 + resonance) * harmonic ** (-2.0 + 1.2 * bright) * np.sin(harmonic * angle)
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * tempo * t + rng.uniform(0, 6))
    noise = rng.normal(0, 0.03 + 0.04 * bright, len(t))
    voice = voice / np.abs(voice).max() * syllables**1.5 + noise * syllables
    return np.asarray(loudness * rng.uniform(0.8, 1.1) * 0.6 * voice, np.float32).clip(-1, 1)


def write_toy_corpus(directory: str | Path, *, clips: int = 150, seed: int = 0) -> Path:
    """Write the corpus below `directory`, unless it is there already; returns the path of its manifest.

    `truth.csv` beside the manifest tells label, face, voice and text of every clip, for scoring alone.
    """
    directory = Path(directory) / f"{clips}-clips-seed-{seed}-v{VERSION}"
    done = directory / "manifest.csv"
    if done.is_file():
        return done
    staged = directory.with_name(f".{directory.name}-{uuid4().hex[:8]}")
    (staged / "clips").mkdir(parents=True)
    rows = list(_clips(staged / "clips", clips, seed))
    _write_csv(staged / "truth.csv", ("clip_id", "label", "face", "voice", "text"), rows)
    for row in rows:
        row["label"] = "" if row["split"] == "unlabeled" else row["label"]
    _write_csv(staged / "manifest.csv", ("clip_id", "path", "split", "label", "speaker", "transcript"), rows)
    try:
        staged.rename(directory)
    except OSError:
        shutil.rmtree(staged)  # another process was first, with the same clips
    return done


def _clips(directory: Path, count: int, seed: int) -> Iterator[dict[str, str]]:
    speakers = [Speaker.draw(np.random.default_rng([seed, 1, number])) for number in range(SPEAKERS)]
    for number, (shown, split) in enumerate(_cast(count, seed)):
        own = np.random.default_rng([seed, 2, number])
        person = number % SPEAKERS
        clip_id = f"toy{number:04d}"
        pictures = _animate(speakers[person], shown["face"], own)
        _write_mp4(directory / f"{clip_id}.mp4", pictures, synthesise_voice(speakers[person], shown["voice"], own))
        line = str(own.choice(LINES[shown["text"]])).format(n=own.integers(2, 12))
        row = {"clip_id": clip_id, "path": f"clips/{clip_id}.mp4", "split": split, "speaker": f"p{person}", "transcript": line}
        yield row | shown


def _cast(count: int, seed: int) -> list[tuple[dict[str, str], str]]:
    """What each clip is, and shows in each modality, and its split: as even over the emotions as it can be."""
    rng = np.random.default_rng([seed, 0])
    labels = rng.permutation(np.arange(count) % len(EMOTIONS))  # (N,)
    shown = {"label": labels}
    for modality in ("face", "voice", "text"):
        misled = rng.permutation(count) < round(MISLEADS * count)
        shown[modality] = (labels + misled * rng.integers(1, len(EMOTIONS), count)) % len(EMOTIONS)
    test = np.arange(count) % SPEAKERS >= SPEAKERS - TEST_SPEAKERS
    order = np.lexsort((rng.permutation(count), labels, test))  # training clips first, by emotion
    labelled = np.zeros(count, bool)
    labelled[order] = np.diff(np.floor(np.arange(count + 1) * LABELLED)) > 0
    splits = np.where(test, "test", np.where(labelled, "labeled", "unlabeled"))
    return [({name: EMOTIONS[row[i]] for name, row in shown.items()}, str(splits[i])) for i in range(count)]


def _animate(speaker: Speaker, emotion: str, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Frames of one clip: the same mood throughout, with camera light and drift of its own."""
    mood = int(rng.integers(1 << 30))
    light, drift = rng.uniform(0.7, 1.15), rng.integers(-8, 9, 2)
    total = int(DURATION_S * RATE_FPS)
    frames = [draw_face(speaker, emotion, np.random.default_rng(mood), phase=i / total) for i in range(total)]
    shifted = [np.roll(frame, (drift * i / total).astype(int), axis=(0, 1)) for i, frame in enumerate(frames)]
    return [np.clip(frame * light + rng.normal(0, 6, frame.shape), 0, 255).astype(np.uint8) for frame in shifted]


def _write_mp4(path: Path, frames: list[NDArray[np.uint8]], waveform: NDArray[np.float32]) -> None:
    with av.open(str(path), "w") as container:
        # x264 looks ahead in a thread of its own: without it the same pictures give the same bytes
        options = {"crf": "26", "preset": "veryfast", "threads": "1", "rc-lookahead": "0"}
        video = container.add_stream("libx264", rate=RATE_FPS, options=options)
        video.width = video.height = SIZE_PX
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        painter = VideoReformatter()
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(video.encode(painter.reformat(picture, format="yuv420p", threads=1)))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        sound.sample_rate, sound.time_base, sound.pts = RATE_HZ, Fraction(1, RATE_HZ), 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode())


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _ellipse(pen: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
    pen.ellipse([x - rx, y - ry, x + rx, y + ry], fill=colour)


def _mouth(pen: ImageDraw.ImageDraw, x: float, y: float, unit: float, curve: float, openness: float) -> None:
    """A closed outline between two arcs: both bend with the smile, the gap is the openness."""
    along = np.linspace(-1, 1, 25)
    bend = 0.22 * unit * curve * (1 - along**2)
    gap = 0.3 * unit * openness * np.sqrt(1 - along**2) + 0.015 * unit
    xs = x + along * unit * (0.42 - 0.12 * openness)
    upper = list(zip(xs, y + bend - gap, strict=True))
    lower = list(zip(xs, y + bend + gap, strict=True))
    pen.polygon(upper + lower[::-1], fill=(120, 30, 40))
