"""The main job as a user starts it, in a process of its own, and killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cluster.conftest import MakeExperiment

pytestmark = pytest.mark.cluster
ROUNDS = ("/round-0", "/round-1", "/round-2")  # children of a run in MLflow
ROOT = Path(__file__).parents[2]
SMALL = [
    "name=small",
    "data.folds=3",
    "rounds.rounds=2",
    "fusion.seeds=1",
    "fusion.min_steps=60",
    "selection=fixed",
    "selection.threshold=0.3",
]


def start(job: str, store: Path, log: Path, *overrides: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"jobs.{job}", "data.toy_clips=60", f"store={store}", *SMALL, *overrides]
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def finish(job: str, store: Path, log: Path, *overrides: str) -> str:
    assert start(job, store, log, *overrides).wait(timeout=300) == 0, log.read_text()
    return log.read_text()


def kill_when(due: Callable[[], bool], store: Path, log: Path) -> str:
    """Start the main job and kill -9 its driver as soon as something is due."""
    driver = start("self_train", store, log)
    deadline = time.monotonic() + 240
    while not due():
        assert driver.poll() is None, f"the job ended before it could be killed:\n{log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return log.read_text()


def pseudo_labels(store: Path) -> dict[str, list[dict[str, object]]]:
    """By round, sorted."""
    return {
        path.parent.name: sorted(pq.read_table(path).to_pylist(), key=lambda row: (row["clip_id"], row.get("fold", -1)))
        for path in sorted(store.glob("runs/*/rounds/*/labels.parquet"))
    }


def runs_of(store: Path) -> list[str]:
    return [path.name for path in (store / "runs").iterdir()]


def told_runs(store: Path) -> list[tuple[str, str]]:
    """Status and key of every run MLflow knows."""
    with closing(sqlite3.connect(store / "mlflow.db")) as base:
        asked = "SELECT runs.status, tags.value FROM tags JOIN runs USING (run_uuid) WHERE tags.key = 'orchestrator.key'"
        return [(str(status), str(key)) for status, key in base.execute(asked)]


def test_a_run_killed_at_three_moments_ends_with_the_pseudo_labels_of_an_undisturbed_one(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    make_experiment()  # draws the clips
    calm, hunted = tmp_path / "calm", tmp_path / "hunted"
    finish("self_train", calm, tmp_path / "calm.log")
    shutil.copytree(calm / "toy", hunted / "toy")

    kill_when(lambda: any(hunted.glob("features/**/part-*.parquet")), hunted, tmp_path / "1.log")
    told = kill_when(lambda: any(hunted.glob("fusion/*")), hunted, tmp_path / "2.log")
    assert "resuming: features of" in told or "extract:" in told
    kill_when(lambda: any(hunted.glob("runs/*/rounds/01/record.json")), hunted, tmp_path / "3.log")
    told = finish("self_train", hunted, tmp_path / "4.log")

    assert "resuming: features of 60 clips found" in told
    assert re.search("resuming: round [12] of 2 found", told)  # the next round is fitted while one is told
    expected = pseudo_labels(calm)
    assert [len(rows) > 0 for rows in expected.values()] == [True, True]
    assert pseudo_labels(hunted) == expected
    assert sorted(told_runs(hunted)) == [("FINISHED", f"{run}{end}") for run in runs_of(hunted) for end in ("", *ROUNDS)]
