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

from orchestrator.cluster.corpus import gather
from orchestrator.cluster.run import Run, self_train
from tests.cluster.conftest import MakeExperiment

pytestmark = pytest.mark.cluster
ROUNDS = ("/round-0", "/round-1", "/round-2")  # children of a run in MLflow
ROOT = Path(__file__).parents[2]
CHOICE = ["selection=fixed", "selection.threshold=0.3", "video=none"]  # CLIP takes the longest to load, and loses nothing else
SMALL = ["name=small", "data.folds=3", "rounds.rounds=2", "fusion.seeds=1", "fusion.min_steps=60", *CHOICE]


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


def pseudo_labels(directory: Path) -> dict[str, list[dict[str, object]]]:
    """Of a run, or of the only run of a store: by round, sorted."""
    return {
        path.parent.name: sorted(pq.read_table(path).to_pylist(), key=lambda row: (row["clip_id"], row.get("fold", -1)))
        for path in sorted(directory.rglob("labels.parquet"))
    }


def runs_of(store: Path) -> list[str]:
    return [path.name for path in (store / "runs").iterdir()]


def told_runs(store: Path) -> list[tuple[str, str]]:
    """Status and key of every run MLflow knows."""
    with closing(sqlite3.connect(store / "mlflow.db")) as base:
        asked = "SELECT runs.status, tags.value FROM tags JOIN runs USING (run_uuid) WHERE tags.key = 'orchestrator.key'"
        return [(str(status), str(key)) for status, key in base.execute(asked)]


def test_a_run_killed_at_three_moments_ends_with_the_pseudo_labels_of_an_undisturbed_one(
    cluster: None, make_experiment: MakeExperiment, drawn: Path, tmp_path: Path
) -> None:
    calm, hunted = make_experiment(*CHOICE), tmp_path / "hunted"
    corpus = gather(calm)
    run = Run.of(calm, corpus)
    assert len(list(self_train(calm, corpus, run))) == len(ROUNDS)
    shutil.copytree(drawn / "toy", hunted / "toy")

    kill_when(lambda: any(hunted.glob("features/**/part-*.parquet")), hunted, tmp_path / "1.log")
    told = kill_when(lambda: any(hunted.glob("fusion/*")), hunted, tmp_path / "2.log")
    assert "resuming: features of" in told or "extract:" in told
    kill_when(lambda: any(hunted.glob("runs/*/rounds/01/record.json")), hunted, tmp_path / "3.log")
    told = finish("self_train", hunted, tmp_path / "4.log")

    assert "resuming: features of 60 clips found" in told
    assert re.search("resuming: round [12] of 2 found", told)  # the next round is fitted while one is told
    expected = pseudo_labels(run.directory)
    assert [len(rows) > 0 for rows in expected.values()] == [True, True]
    assert pseudo_labels(hunted) == expected
    assert sorted(told_runs(hunted)) == [("FINISHED", f"{run}{end}") for run in runs_of(hunted) for end in ("", *ROUNDS)]


def test_what_a_private_cluster_can_never_hold_ends_the_job_in_a_sentence(drawn: Path, tmp_path: Path) -> None:
    asked = start("self_train", drawn, tmp_path / "log", "cluster.cpus=2", "cluster.fit_workers=3")
    assert asked.wait(timeout=120) == 2
    assert (
        "cluster.fit_workers=3 asks for 3 CPUs at once, the private cluster on this machine has 2"
        in (tmp_path / "log").read_text()
    )
