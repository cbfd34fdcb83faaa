"""An artifact is there whole, or not at all."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from orchestrator.errors import DamagedArtifact
from orchestrator.stores.artifacts import RECORD, ArtifactStore, write_durably


def fill(store: ArtifactStore, *, word: str = "one") -> None:
    with store.write("fusion", "f1", {"seed": 3}) as directory:
        (directory / "deep").mkdir()
        (directory / "deep" / "weights.bin").write_bytes(word.encode() * 100)
        (directory / "about.txt").write_text(word)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_written_is_found_with_its_record(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.find("fusion", "f1") is None
    fill(store)
    found = store.find("fusion", "f1")
    assert found is not None
    assert (found / "deep" / "weights.bin").read_bytes() == b"one" * 100
    record = store.record("fusion", "f1")
    assert record["seed"] == 3
    assert set(record["files"]) == {"deep/weights.bin", "about.txt"}  # type: ignore[arg-type]
    assert names(tmp_path / "fusion") == ["f1"]


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with pytest.raises(FileNotFoundError), store.write("fusion", "f1", {}) as directory:
        (directory / "weights.bin").write_bytes((tmp_path / "absent").read_bytes())
    assert store.find("fusion", "f1") is None
    assert names(tmp_path / "fusion") == []


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.write("fusion", "f1", {"writer": 2}) as slow:
        (slow / "about.txt").write_text("second")
        fill(store)
    found = store.find("fusion", "f1")
    assert found is not None
    assert (found / "about.txt").read_text() == "one"
    assert store.record("fusion", "f1")["seed"] == 3
    assert names(tmp_path / "fusion") == ["f1"]


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "record", "no record"])
def test_a_damaged_artifact_counts_as_missing_and_can_be_made_again(
    tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(tmp_path)
    fill(store)
    file = tmp_path / "fusion" / "f1" / "deep" / "weights.bin"
    if harm == "flip":
        file.write_bytes(b"x" + file.read_bytes()[1:])
    elif harm == "truncate":
        file.write_bytes(file.read_bytes()[:-1])
    elif harm == "delete":
        file.unlink()
    elif harm == "record":
        (tmp_path / "fusion" / "f1" / RECORD).write_text('{"seed": 3, "fil')
    else:
        (tmp_path / "fusion" / "f1" / RECORD).unlink()
    with pytest.raises(DamagedArtifact):
        store.record("fusion", "f1")
    assert store.find("fusion", "f1") is None
    assert "made again" in capsys.readouterr().err
    fill(store)
    assert store.find("fusion", "f1") is not None


def test_a_half_deleted_artifact_does_not_block_its_writer(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    fill(store)
    (tmp_path / "fusion" / "f1" / RECORD).unlink()
    fill(store, word="two")
    assert (tmp_path / "fusion" / "f1" / "about.txt").read_text() == "two"


def test_killed_at_any_moment_it_is_whole_or_absent(tmp_path: Path) -> None:
    """The writer kills itself with SIGKILL at the k-th system call that Python reports, for every k until it survives."""
    whole = 0
    for moment in range(200):
        store = ArtifactStore(tmp_path / str(moment))
        child = os.fork()
        if child == 0:
            write_and_die(store, moment)
        _, status = os.waitpid(child, 0)
        found = store.find("fusion", "f1")
        whole += found is not None
        if found is not None:
            assert (found / "deep" / "weights.bin").read_bytes() == b"one" * 100
        fill(store)  # nothing that was left behind is in the way
        assert store.find("fusion", "f1") is not None
        if not os.WIFSIGNALED(status):
            break
    assert not os.WIFSIGNALED(status), "the writer must survive once the moments are used up"
    assert moment > 15, "the writer was hardly interrupted"
    assert 1 <= whole < moment


def write_and_die(store: ArtifactStore, moment: int) -> None:
    left = moment

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in ("open", "os.mkdir", "os.rename", "os.scandir", "os.listdir", "os.rmdir", "os.remove"):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    fill(store)
    os._exit(0)


def test_what_killed_writers_left_is_swept_after_a_week(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    old, fresh = tmp_path / "fusion" / ".f0-old", tmp_path / "fusion" / ".f0-fresh"
    for directory in (old, fresh):
        directory.mkdir(parents=True)
        (directory / "weights.bin").write_bytes(b"half")
    os.utime(old, (time.time() - 8 * 86_400,) * 2)
    fill(store)
    assert names(tmp_path / "fusion") == [".f0-fresh", "f1"]


def test_a_durable_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "summary.json"
    write_durably(path, b"first")
    write_durably(path, json.dumps({"round": 1}).encode())
    assert json.loads(path.read_text()) == {"round": 1}
    assert names(path.parent) == ["summary.json"]
