"""Stored features come back as they were written, or count as unknown."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import DamagedArtifact, InputError
from orchestrator.stores.artifacts import ArtifactStore
from orchestrator.stores.features import FeatureStore
from orchestrator.vocabulary import Bools, Floats, Names, Rejected


def batch(start: int, count: int, width: int = 4) -> tuple[Names, Floats, Bools]:
    index = np.arange(start, start + count)
    values = (index[:, None] + np.arange(width) / 8).astype(np.float32)
    return np.array([f"key{i:04d}" for i in index]), values, index % 3 > 0


@pytest.fixture(params=["path", "file://", "memory://"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    places = {"path": str(tmp_path), "file://": f"file://{tmp_path}", "memory://": f"memory://{uuid4().hex}"}
    return str(places[request.param])


def test_rows_come_back_in_the_order_asked(root: str) -> None:
    store = FeatureStore(f"{root}/features")
    assert store.known("audio", "f1") == set()
    for start in (0, 10, 20):
        store.write("audio", "f1", *batch(start, 10))
    keys, values, present = batch(0, 30)
    assert store.known("audio", "f1") == set(keys)
    order = np.random.default_rng(0).permutation(30)[:17]
    read, there = store.read("audio", "f1", keys[order].tolist())
    np.testing.assert_array_equal(read, values[order])
    np.testing.assert_array_equal(there, present[order])
    assert read.dtype == np.float32
    assert store.known("audio", "f2") == store.known("video", "f1") == set()


def test_two_clips_with_equal_content_get_the_same_row(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.write("audio", "f1", *batch(0, 3))
    read, _ = store.read("audio", "f1", ["key0002", "key0000", "key0002"])
    np.testing.assert_array_equal(read[:, 0], [2, 0, 2])


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    keys, values, present = batch(0, 5)
    store.write("audio", "f1", keys, values.astype(np.float16), present)
    read, _ = store.read("audio", "f1", keys.tolist())
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, values.astype(np.float16))


def test_the_same_batch_rests_once(root: str) -> None:
    store = FeatureStore(f"{root}/features")
    for _ in range(3):
        store.write("audio", "f1", *batch(0, 10))
    assert len(store._folder.names("audio/f1")) == 1


def test_a_missing_row_is_an_error_that_counts_them(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.write("audio", "f1", *batch(0, 3))
    with pytest.raises(KeyError, match=r"2 of 4 keys have no row of stream audio"):
        store.read("audio", "f1", ["key0000", "a", "b", "key0001"])


def test_a_value_that_is_not_finite_is_never_stored(tmp_path: Path) -> None:
    keys, values, present = batch(0, 3)
    values[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3 keys, first key0001"):
        FeatureStore(tmp_path).write("audio", "f1", keys, values, present)
    assert FeatureStore(tmp_path).known("audio", "f1") == set()


def test_the_store_can_be_sent_to_a_worker_in_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FeatureStore("features")
    store.write("audio", "f1", *batch(0, 3))
    sent = pickle.dumps(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(pickle.loads(sent).known("audio", "f1")) == 3


def test_shards_are_plain_parquet_that_anybody_can_read(tmp_path: Path) -> None:
    FeatureStore(tmp_path).write("audio", "f1", *batch(0, 3))
    (shard,) = (tmp_path / "audio" / "f1").glob("*.parquet")
    table = pq.read_table(shard, page_checksum_verification=True)
    assert [str(field.type) for field in table.schema] == ["string", "bool", "fixed_size_list<element: float>[4]"]
    assert b"ARROW:extension:name" not in shard.read_bytes()


@pytest.mark.parametrize("seed", range(8))
def test_no_flipped_bit_and_no_truncation_is_read_as_data(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(seed)
    store = FeatureStore(tmp_path)
    store.write("audio", "f1", *batch(0, 10))
    (shard,) = (tmp_path / "audio" / "f1").glob("*.parquet")
    store.write("audio", "f1", *batch(10, 10))
    data = bytearray(shard.read_bytes())
    if seed % 2:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    else:
        data = data[: rng.integers(len(data))]
    shard.write_bytes(data)
    assert store.known("audio", "f1") == set(batch(10, 10)[0])
    assert "damaged" in capsys.readouterr().err
    store.write("audio", "f1", *batch(0, 10))  # made again
    keys, values, _ = batch(0, 20)
    np.testing.assert_array_equal(store.read("audio", "f1", keys.tolist())[0], values)


def test_a_shard_moved_to_another_stream_is_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.write("audio", "f1", *batch(0, 3))
    shutil.copytree(tmp_path / "audio", tmp_path / "video")
    with pytest.raises(DamagedArtifact, match="somebody moved it"):
        store.known("video", "f1")


WRITER = """
import sys
import numpy as np
from orchestrator.stores.features import FeatureStore
store = FeatureStore(sys.argv[1])
print("ready", flush=True)
for start in range(0, 1_000_000, 50):
    keys = np.array([str(i) for i in range(start, start + 50)])
    store.write("audio", "f1", keys, np.full((50, 256), start, np.float32), np.ones(50, bool))
"""


def test_a_killed_writer_leaves_only_whole_shards(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    store = FeatureStore(tmp_path)
    while len(store.known("audio", "f1")) < 500:  # a reader beside the writer sees whole shards at every moment
        pass
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    keys = store.known("audio", "f1")
    assert len(keys) % 50 == 0
    read, _ = store.read("audio", "f1", sorted(keys))
    np.testing.assert_array_equal(read[:, 0], [int(key) // 50 * 50 for key in sorted(keys)])


def test_joined_streams_are_mapped_arrays_made_once(tmp_path: Path) -> None:
    store, cache = FeatureStore(tmp_path / "features"), ArtifactStore(tmp_path)
    keys, values, present = batch(0, 20)
    store.write("audio", "f1", keys, values, present)
    store.write("text", "f2", *batch(0, 20, width=2))
    order = np.arange(20)[::-1]
    wanted = {"audio": ("f1", keys[order].tolist()), "text": ("f2", keys[:1].tolist() * 20)}
    joined = store.join(wanted, keys[order], cache)
    assert isinstance(joined.values["audio"], np.memmap)
    np.testing.assert_array_equal(joined.values["audio"], values[order])
    np.testing.assert_array_equal(joined.values["text"], np.tile([0, 0.125], (20, 1)))
    np.testing.assert_array_equal(joined.present, np.stack([present[order], np.full(20, present[0])], axis=1))
    shutil.rmtree(tmp_path / "features")
    again = store.join(wanted, keys[order], cache)
    np.testing.assert_array_equal(again.values["audio"], values[order])
    half = {"audio": wanted["audio"]}
    with pytest.raises(KeyError):
        store.join(half, keys[order], cache, half=True)  # another precision is another array


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features")
    store.write("text", "f1", np.array(["a"]), np.array([[1e6]], np.float32), np.array([True]))
    wanted = {"text": ("f1", ["a"])}
    with pytest.raises(ValueError, match="keep it in float32"):
        store.join(wanted, np.array(["a"]), ArtifactStore(tmp_path), half=True)
    assert store.join(wanted, np.array(["a"]), ArtifactStore(tmp_path)).values["text"][0, 0] == 1e6


def test_rejected_clips_are_kept_until_forgotten(root: str) -> None:
    store = FeatureStore(f"{root}/features")
    assert store.rejected("f1") == []
    bad = [Rejected("b", "decode", "TRUNCATED", "moov <b>missing</b>"), Rejected("a", "decode", "EMPTY", "0 bytes")]
    store.reject("f1", bad)
    store.reject("f1", bad)
    store.reject("f1", [])
    assert store.rejected("f1") == [bad[1], bad[0]]
    assert store.rejected("f2") == []
    store.forget_rejected("f1")
    assert store.rejected("f1") == []


def test_a_file_that_was_mended_is_no_longer_rejected(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    rows = [Rejected(name, "decode", "EMPTY", "") for name in "abcd"]
    store.reject("f1", rows, {"a": "old", "b": "same", "c": "", "d": ""})
    kept = store.rejected("f1", {"a": "new", "b": "same", "c": "", "d": "readable now"})
    assert [row.clip_id for row in kept] == ["b", "c"]


def test_an_object_store_without_its_package_says_what_to_install() -> None:
    with pytest.raises(InputError, match="nosuch"):
        FeatureStore("nosuch://bucket/features")
