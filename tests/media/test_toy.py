from __future__ import annotations

import csv
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.media.manifest import read_manifest
from orchestrator.media.toy import EMOTIONS, Speaker, draw_face, synthesise_voice, write_toy_corpus
from orchestrator.vocabulary import Clip, Emotions, Split

COUNT = 48


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_corpus(tmp_path_factory.mktemp("toy"), clips=COUNT)


@pytest.fixture(scope="module")
def clips(manifest: Path) -> tuple[Clip, ...]:
    return read_manifest(manifest, emotions=Emotions(EMOTIONS))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_seed_gives_the_same_bytes(manifest: Path, tmp_path: Path) -> None:
    again = write_toy_corpus(tmp_path, clips=COUNT)
    one, other = (sorted(file for file in path.parent.rglob("*") if file.is_file()) for path in (manifest, again))
    assert len(one) == COUNT + 2
    assert [sha256(file.read_bytes()).digest() for file in one] == [sha256(file.read_bytes()).digest() for file in other]


def test_a_finished_corpus_is_not_drawn_again(manifest: Path) -> None:
    before = manifest.stat().st_mtime_ns
    assert write_toy_corpus(manifest.parent.parent, clips=COUNT) == manifest
    assert manifest.stat().st_mtime_ns == before


def test_test_speakers_are_never_seen_in_training(clips: tuple[Clip, ...]) -> None:
    groups = {split: {clip.group for clip in clips if clip.split is split} for split in Split}
    assert not groups[Split.TEST] & (groups[Split.LABELLED] | groups[Split.UNLABELLED])
    assert len(set().union(*groups.values())) == 8


def test_few_clips_are_labelled_and_every_emotion_is_among_them(clips: tuple[Clip, ...]) -> None:
    splits = Counter(clip.split for clip in clips)
    assert 0.2 < splits[Split.LABELLED] / COUNT < 0.32
    assert 0.18 < splits[Split.TEST] / COUNT < 0.27
    per_class = Counter(clip.label for clip in clips if clip.split is Split.LABELLED)
    assert set(per_class) == set(range(6))


def test_each_modality_misleads_in_its_share_and_not_in_the_same_clips(manifest: Path) -> None:
    truth = rows(manifest.parent / "truth.csv")
    wrong = {name: {row["clip_id"] for row in truth if row[name] != row["label"]} for name in ("face", "voice", "text")}
    for found in wrong.values():
        assert 0.15 < len(found) / COUNT < 0.2
    assert not wrong["face"] == wrong["voice"] == wrong["text"]


def test_the_labels_of_the_pool_are_in_the_truth_alone(manifest: Path) -> None:
    assert {row["label"] for row in rows(manifest) if row["split"] == "unlabeled"} == {""}
    assert {row["label"] for row in rows(manifest.parent / "truth.csv")} == set(EMOTIONS)


def test_clips_decode_to_a_face_a_voice_and_a_line(clips: tuple[Clip, ...]) -> None:
    film = decode(clips[0], DecodeSettings())
    assert film.frames.shape == (8, 112, 112, 3)
    assert len(film.waveform) == pytest.approx(2 * film.rate_hz, rel=0.05)
    assert np.abs(film.waveform).max() > 0.05
    assert film.transcript
    assert film.flags == ()


def test_speakers_differ_in_face_and_voice_and_emotions_within_a_speaker() -> None:
    people = [Speaker.draw(np.random.default_rng(seed)) for seed in (1, 2)]
    faces = {(i, mood): draw_face(person, mood, np.random.default_rng(0)) for i, person in enumerate(people) for mood in EMOTIONS}
    voices = {
        (i, mood): synthesise_voice(person, mood, np.random.default_rng(0))
        for i, person in enumerate(people)
        for mood in EMOTIONS
    }
    assert len({face.tobytes() for face in faces.values()}) == len(faces)
    assert len({voice.tobytes() for voice in voices.values()}) == len(voices)
    assert faces[0, "happy"].shape == (112, 112, 3)
    assert voices[0, "sad"].std() < voices[0, "angry"].std()
