"""The controller of a running job: reached from another process, and killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.cluster.test_resume import finish, pseudo_labels, start

pytestmark = [pytest.mark.cluster, pytest.mark.chaos]


def wait_for(due: Callable[[], bool], job: Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not due():
        assert job.poll() is None, f"the job ended too early:\n{log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def controllers(job: Popen[bytes]) -> Iterator[int]:
    """Process ids of the job's own controller: its raylet's child."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.parent.name, stat.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(pid)] = (int(rest[2].split()[1]), rest[0])
    for pid, (parent, name) in parents.items():
        if "RoundContr" in name and parents.get(parent, (0, ""))[0] == job.pid:
            yield pid


def test_a_controller_that_dies_is_restarted_and_learns_the_same(tmp_path: Path) -> None:
    calm, hunted, log = tmp_path / "calm", tmp_path / "hunted", tmp_path / "hunted.log"
    finish("self_train", calm, tmp_path / "calm.log")
    job = start("self_train", hunted, log)
    wait_for(lambda: any(hunted.glob("runs/*/rounds/00/record.json")), job, log)
    killed = list(controllers(job))
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    assert job.wait(timeout=300) == 0, log.read_text()
    assert pseudo_labels(hunted) == pseudo_labels(calm) != {}


def test_a_running_job_says_how_far_it_is_and_stops_when_asked(tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "job.log"
    long = ("rounds.rounds=30", "rounds.patience=30", "fusion.min_steps=400")
    job = start("self_train", store, log, *long)
    wait_for(lambda: any(store.glob("runs/*/walk.json")), job, log)
    told = finish("status", store, tmp_path / "status.log", *long)
    assert f"process {job.pid} on" in told
    told = finish("status", store, tmp_path / "stop.log", *long, "job.stop=true")
    assert "it stops after this round" in told
    assert job.wait(timeout=300) == 0, log.read_text()
    assert "predictions" in log.read_text()
    assert 1 <= len(list(store.glob("runs/*/rounds/*/record.json"))) < 25
    assert "finished" in finish("status", store, tmp_path / "after.log", *long)
