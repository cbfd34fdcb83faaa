"""What every job does first and last: read the command line, and turn an error into one message and its exit code."""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch load: sums come out the same on every machine
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from orchestrator.errors import OrchestratorError
from orchestrator.wiring import CONFIGS, build, compose_config, plain, plain_config

if TYPE_CHECKING:
    from orchestrator.settings import Experiment, JobSettings


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, read: the objects of the run, what its job alone reads, and the plain settings behind them."""

    experiment: Experiment
    job: JobSettings
    settings: Mapping[str, Any]
    overrides: tuple[str, ...]

    @classmethod
    def read(cls, overrides: Sequence[str]) -> Command:
        """Raises ConfigError."""
        config = compose_config(overrides)
        return cls(*build(config), plain(config), tuple(overrides))


Asked = TypeVar("Asked")


def launch(job: Callable[[Command], None], doc: str | None) -> None:
    """Run a job with the command line's config. Exit codes: 0 done, 2 config, 3 input, 4 failure, 5 cluster, 130 interrupted."""
    _launch(job, Command.read, doc)


def launch_reader(job: Callable[[Mapping[str, Any]], None], doc: str | None) -> None:
    """Run a job that only reads about runs: the plain settings are all it gets, and it starts at once."""
    _launch(job, plain_config, doc)


def _launch(job: Callable[[Asked], None], read: Callable[[Sequence[str]], Asked], doc: str | None) -> None:
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(f"{doc}\nConfig groups and keys: {CONFIGS}/config.yaml. Recipes: {', '.join(_recipes())}.")
        return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    warnings.showwarning = lambda message, *_: _warn(str(message))
    try:
        job(read(overrides))
    except OrchestratorError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: run the same command again and it goes on from what was finished", file=sys.stderr, flush=True)
        sys.exit(130)


@functools.cache  # once a message: clips and folds are looked at more than once
def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _recipes() -> list[str]:
    return sorted(f"experiment={path.stem}" for path in (CONFIGS / "experiment").glob("*.yaml") if path.stem != "none")
