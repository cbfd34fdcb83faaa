from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError
from orchestrator.media.importers import folder_per_class, mer2024, mertools, ravdess, write_manifest
from orchestrator.media.manifest import read_manifest
from orchestrator.media.toy import EMOTIONS
from orchestrator.vocabulary import Emotions, Split

SIX = Emotions(EMOTIONS)


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"film")


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    touch(tmp_path, "video-labeled/samplenew_1.mp4", "video-labeled/samplenew_2.avi")
    touch(tmp_path, *(f"video-unlabeled-with-test2noise/sample_{number}.mp4" for number in range(3)))
    (tmp_path / "label-disdim.csv").write_text("name,discrete,valence\nsamplenew_1,worried,-1.5\nsamplenew_2,happy,2\n")
    (tmp_path / "label-transcription.csv").write_text("name,chinese,english\nsamplenew_1,我很担心。,I am worried.\n", "utf-8-sig")
    (tmp_path / "new_release").mkdir()
    (tmp_path / "new_release" / "candidate_20000.csv").write_text("name\nsample_2\n")
    return tmp_path


def test_the_challenge_release_becomes_a_manifest(challenge: Path) -> None:
    clips = read_manifest(write_manifest(challenge / "manifest.csv", mer2024(challenge)), emotions=SIX)
    assert Counter(clip.split for clip in clips) == {Split.LABELLED: 2, Split.UNLABELLED: 3}
    by_id = {clip.clip_id: clip for clip in clips}
    assert by_id["samplenew_1"].label == EMOTIONS.index("worried")
    assert by_id["samplenew_1"].transcript == "我很担心。"
    assert by_id["samplenew_2"].path.endswith("samplenew_2.avi")


def test_candidates_can_be_left_alone_and_lines_be_english(challenge: Path) -> None:
    rows = {row["clip_id"]: row for row in mer2024(challenge, language="english", candidates="test")}
    assert rows["sample_2"]["split"] == "test"
    assert rows["sample_1"]["split"] == "unlabeled"
    assert rows["samplenew_1"]["transcript"] == "I am worried."


def test_labels_without_a_video_are_all_named(challenge: Path) -> None:
    (challenge / "video-labeled" / "samplenew_1.mp4").unlink()
    with pytest.raises(ManifestError, match="'samplenew_1' has a label but no video"):
        list(mer2024(challenge))


def test_a_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "happy/a.mp4", "sad/a.mp4", "sad/b.txt", "unlabeled/c.mkv", "test/angry/d.mp4", "test/e.mp4")
    clips = read_manifest(write_manifest(tmp_path / "m.csv", folder_per_class(tmp_path)), emotions=SIX)
    assert [(clip.clip_id, clip.split.value, clip.label) for clip in clips] == [
        ("happy-a", "labeled", 2),
        ("sad-a", "labeled", 3),
        ("test-e", "test", None),
        ("test-angry-d", "test", 1),
        ("unlabeled-c", "unlabeled", None),
    ]


def test_ravdess_is_split_by_actor_and_reads_its_file_names(tmp_path: Path) -> None:
    takes = [
        "01-01-06-01-02-01-01",
        "02-01-06-01-02-01-01",
        "01-01-07-01-01-01-02",
        "01-01-08-01-01-01-12",
        "01-01-03-01-01-01-24",
    ]
    touch(tmp_path, *(f"Actor_{take[-2:]}/{take}.mp4" for take in takes), "readme.mp4")
    clips = read_manifest(write_manifest(tmp_path / "m.csv", ravdess(tmp_path)), emotions=SIX)
    assert [(clip.split.value, clip.label, clip.group) for clip in clips] == [
        ("labeled", EMOTIONS.index("worried"), "01"),
        ("unlabeled", None, "12"),
        ("test", EMOTIONS.index("happy"), "24"),
    ]
    assert clips[0].transcript == "Dogs are sitting by the door."


def test_what_mertools_preprocessed_becomes_a_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "video/sample_1.mp4", "video/sample_2.avi")
    (tmp_path / "transcription-merge.csv").write_text("name,chinese\nsample_2,好。\n", "utf-8-sig")
    clips = read_manifest(write_manifest(tmp_path / "m.csv", mertools(tmp_path, {"sample_1": "sad"})), emotions=SIX)
    assert [(clip.clip_id, clip.split.value, clip.label, clip.transcript) for clip in clips] == [
        ("sample_1", "labeled", EMOTIONS.index("sad"), ""),
        ("sample_2", "unlabeled", None, "好。"),
    ]
    with pytest.raises(ManifestError, match="'sample_9' has a label but no video"):
        list(mertools(tmp_path, {"sample_9": "sad"}))


def test_an_empty_folder_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no clip was found"):
        write_manifest(tmp_path / "m.csv", folder_per_class(tmp_path))
    assert not list(tmp_path.iterdir())
