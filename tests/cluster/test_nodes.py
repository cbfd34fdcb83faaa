"""A cluster of several nodes, some of which vanish."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.cluster.test_resume import finish, pseudo_labels, start

pytestmark = [pytest.mark.cluster, pytest.mark.chaos]


def test_a_node_that_vanishes_changes_nothing_that_is_learnt(tmp_path: Path) -> None:
    calm, hunted, log = tmp_path / "calm", tmp_path / "hunted", tmp_path / "hunted.log"
    finish("self_train", calm, tmp_path / "calm.log")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        doomed, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
        job = start("self_train", hunted, log, f"cluster.address={cluster.address}", "cluster.fit_workers=1")
        deadline = time.monotonic() + 240
        while not any(hunted.glob("features/**/part-*.parquet")):
            assert job.poll() is None, f"the job ended too early:\n{log.read_text()}"
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert job.wait(timeout=600) == 0, log.read_text()
    finally:
        cluster.shutdown()
    assert "the Ray cluster at" in log.read_text()
    assert pseudo_labels(hunted) == pseudo_labels(calm) != {}
