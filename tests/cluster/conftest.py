"""One real cluster for all tests that need Ray, and a small drawn corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.session import session
from orchestrator.settings import ClusterSettings, Experiment
from orchestrator.wiring import build, compose_config

MakeExperiment = Callable[..., Experiment]


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    with session(ClusterSettings(cpus=4)):  # four fit workers must find room; real cores may be fewer
        yield


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a corpus of 60 drawn clips and nothing else."""
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture(scope="session")
def make_experiment(drawn: Path) -> MakeExperiment:
    """The toy recipe, small; stores that differ share the drawn clips."""

    def make(*overrides: str, store: Path | None = None) -> Experiment:
        from orchestrator.media.toy import write_toy_corpus

        manifest = write_toy_corpus(drawn / "toy", clips=60, seed=0)
        small = [f"data.manifest={manifest}", "data.folds=3", "rounds.rounds=2", "fusion.seeds=1", "fusion.min_steps=60"]
        config = compose_config(["name=small", f"store={store or drawn}", *small, *overrides])
        return build(config)[0]

    return make
