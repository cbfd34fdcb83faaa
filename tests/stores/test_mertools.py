"""MERTools' files go both ways, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import InputError
from orchestrator.stores.mertools import (
    UtteranceFolder,
    read_labels,
    read_utterance_features,
    write_corpus,
    write_labels,
    write_utterance_features,
)
from orchestrator.vocabulary import Clip, DecodedClip, Emotions, Features, Split

LABELS = {"train_corpus": {"sample_1": "happy", "sample é 2": "sad"}, "test1_corpus": {"sample_3": "neutral"}}


def test_features_come_back(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
    present = np.array([True, False, True])
    names = ["sample_1", "sample_2", "sample_3"]
    write_utterance_features(tmp_path / "hubert-UTT", names, values, present)
    assert np.load(tmp_path / "hubert-UTT" / "sample_2.npy").tolist() == [0, 0, 0, 0]
    back, there = read_utterance_features(tmp_path / "hubert-UTT", names[::-1])
    np.testing.assert_array_equal(there, present[::-1])
    np.testing.assert_array_equal(back[there], values[::-1][there])


def test_frame_level_features_are_averaged_and_empty_ones_absent(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1.0, 3.0], [3.0, 5.0]]))
    np.save(tmp_path / "b.npy", np.zeros((0, 2)))
    values, present = read_utterance_features(tmp_path, ["a", "b"])
    assert values.tolist() == [[2, 4], [0, 0]]
    assert present.tolist() == [True, False]


def test_a_corpus_goes_to_mertools_and_comes_back_as_a_stream(tmp_path: Path) -> None:
    clips = [Clip("a", "", Split.LABELLED, 1), Clip("b", "", Split.UNLABELLED), Clip("c", "", Split.TEST, 0)]
    values = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    features = Features(np.array(["a", "b", "c"]), {"audio": values}, np.array([[True], [False], [True]]))
    written = write_corpus(tmp_path, clips, features, Emotions(("neutral", "happy")))
    assert read_labels(written[-1]) == {"train_corpus": {"a": "happy"}, "test1_corpus": {"b": "neutral", "c": "neutral"}}
    nothing, silence = np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.float32)
    asked = [DecodedClip(name, nothing, silence, silence, 16_000, None) for name in ("c", "b", "never seen", "a")]
    encoded = UtteranceFolder("audio", str(tmp_path / "audio-UTT")).load().encode(asked)
    assert encoded.present.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(encoded.values[[0, 3]], values[[2, 0]])


def test_a_folder_of_features_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    recipe = UtteranceFolder("audio", str(tmp_path / "f-UTT"))
    with pytest.raises(InputError, match="is not a folder of <clip_id>"):
        recipe.identity()
    write_utterance_features(tmp_path / "f-UTT", ["a"], np.ones((1, 2)), np.array([True]))
    before = recipe.identity()
    write_utterance_features(tmp_path / "f-UTT", ["a"], np.full((1, 2), 2.0), np.array([True]))
    assert recipe.identity() != before


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".."])
def test_a_clip_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a file name"):
        write_utterance_features(tmp_path / "f", [name], np.ones((1, 2)), np.array([True]))
    with pytest.raises(InputError):
        read_utterance_features(tmp_path, [name])


def test_unreadable_features_are_named_together(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.array([np.nan, 1]))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "wide.npy", np.ones(3))
    np.save(tmp_path / "good.npy", np.ones(2))
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"5 of 6 clips") as caught:
        read_utterance_features(tmp_path, ["nan", "words", "wide", "good", "pickled", "absent"])
    for told in ("not finite", "no feature", "widths differ: [2, 3]"):
        assert told in str(caught.value)


def test_labels_come_back(tmp_path: Path) -> None:
    write_labels(tmp_path / "label-6way.npz", LABELS)
    assert read_labels(tmp_path / "label-6way.npz") == LABELS


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_labels_are_read_from_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    boxed = np.array({"a": {"emo": "happy", "val": np.float32(1)}}, dtype=object)
    path = packed(tmp_path / "0.npz", pickle.dumps(boxed, protocol=protocol))
    assert read_labels(path) == {"train_corpus": {"a": "happy"}}


def test_mertools_reads_what_we_write(tmp_path: Path) -> None:
    write_labels(tmp_path / "label-6way.npz", LABELS)
    corpora = np.load(tmp_path / "label-6way.npz", allow_pickle=True)  # as MERTools does; the file is our own
    assert corpora["train_corpus"].tolist() == {name: {"emo": emo, "val": -1} for name, emo in LABELS["train_corpus"].items()}
    with zipfile.ZipFile(tmp_path / "label-6way.npz") as archive:
        assert b"numpy._core" not in archive.read("train_corpus.npy")  # NumPy 1 could not open it


def test_we_read_what_mertools_writes(tmp_path: Path) -> None:
    told = {name: {"emo": emotion, "val": np.float64(0.5)} for name, emotion in LABELS["train_corpus"].items()}
    np.savez_compressed(tmp_path / "label-6way.npz", train_corpus=told, test1_corpus={"sample_3": {"emo": "neutral", "val": -10}})  # type: ignore[arg-type]
    assert read_labels(tmp_path / "label-6way.npz") == LABELS


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def packed(path: Path, pickled: bytes, header: dict[str, object] | None = None) -> Path:
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, header or {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_corpus.npy", data.getvalue() + pickled)
    return path


def test_a_malicious_label_file_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickles = [
        pickle.dumps(Bomb(marker)),
        pickle.dumps({"a": {"emo": Bomb(marker)}}, protocol=0),
        pickle.dumps(np.array({"a": Bomb(marker)}, dtype=object)),
        b"cbuiltins\neval\n(S'open(\"" + str(marker).encode() + b'", "w")\'\ntR.',
        b"cnumpy.testing._private.utils\nrunstring\n(S'import os'\n}tR.",
        b"cnumpy\nload\n(S'x'\ntR.",
    ]
    for number, pickled in enumerate(pickles):
        with pytest.raises(InputError, match="no label needs"):
            read_labels(packed(tmp_path / f"{number}.npz", pickled))
    assert not marker.exists()
    np.load(tmp_path / "0.npz", allow_pickle=True)["train_corpus"]  # the bomb is real
    assert marker.exists()


@pytest.mark.parametrize(
    "pickled",
    [b"", b"garbage", pickle.dumps(["a"]), pickle.dumps({"a": 3}), pickle.dumps({1: "happy"}), b"\x80\x04r\xff\xff\xff\xff."],
)
def test_a_broken_label_file_is_one_message(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(InputError, match=r"0\.npz"):
        read_labels(packed(tmp_path / "0.npz", pickled))


def test_a_file_that_is_no_archive_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "label.npz").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="not a label file"):
        read_labels(tmp_path / "label.npz")
    with pytest.raises(InputError, match="array"):
        read_labels(packed(tmp_path / "0.npz", b"", {"descr": "<f8", "fortran_order": False, "shape": (3,)}))
