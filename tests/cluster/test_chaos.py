"""Extraction while its processes are killed: nothing lost, nothing doubled, at most a block a kill done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.cluster.conftest import MakeExperiment
from tests.cluster.killing import DECODER, ENCODER, killing
from tests.cluster.noting import BLOCK, extract, noted

pytestmark = [pytest.mark.cluster, pytest.mark.chaos]
ROOT = Path(__file__).parents[2]
KILLS = 3


@pytest.fixture(scope="module")
def manifest(make_experiment: MakeExperiment) -> str:
    return str(make_experiment().data.manifest)


def stored(store: Path) -> list[str]:
    """Keys of all stored rows, as often as they are there."""
    return [key for path in store.glob("features/video/*/*.parquet") for key in pq.read_table(path)["key"].to_pylist()]


@pytest.mark.parametrize(("victim", "kills"), [(ENCODER, KILLS), (DECODER, 1)], ids=["encoder", "decoder"])
def test_kills_cost_a_block_each_and_change_nothing(
    cluster: None, manifest: str, tmp_path: Path, victim: str, kills: int
) -> None:
    calm = extract(tmp_path / "calm", manifest)
    with killing([victim] * kills, pause_s=1.5) as killed:
        hunted = extract(tmp_path / "hunted", manifest)
    assert killed == [victim] * kills
    assert hunted.rejected == ()
    np.testing.assert_array_equal(hunted.features.values["video"], calm.features.values["video"])
    rows, notes = stored(tmp_path / "hunted"), noted(tmp_path / "hunted")
    assert len(rows) == len(set(rows)) == len(set(notes)) == len(calm.clips)
    assert len(notes) - len(set(notes)) <= (kills * BLOCK if victim == ENCODER else 0)


def test_a_driver_killed_again_and_again_redoes_at_most_a_block_each_time(cluster: None, manifest: str, tmp_path: Path) -> None:
    calm, store, log = extract(tmp_path / "calm", manifest), tmp_path / "hunted", tmp_path / "log"
    for kill in range(KILLS):
        with log.open("wb") as file:
            command = [sys.executable, "-m", "tests.cluster.noting", str(store), manifest]
            driver = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 240
        while len(stored(store)) < (kill + 1) * 3 * BLOCK:
            assert driver.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    finished = extract(store, manifest)
    np.testing.assert_array_equal(finished.features.values["video"], calm.features.values["video"])
    rows, notes = stored(store), noted(store)
    assert len(rows) == len(set(rows)) == len(set(notes)) == len(calm.clips)
    assert len(notes) - len(set(notes)) <= KILLS * BLOCK
