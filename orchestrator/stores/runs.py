"""Runs on disk, read without loading anything heavy: which there are, how they were asked for, what came of them.

<store>/runs/<name>-<fingerprint>/
    settings.json    how it was asked for, as plain keys; written when it starts
    rounds/          the ledger, a directory a round
    attention.json   clips a human should look at, human labels, rejected clips; written after each round
    summary.json     what came of it; there once it has finished
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.stores.artifacts import write_durably

SETTINGS, SUMMARY, ATTENTION = "settings.json", "summary.json", "attention.json"
WALK, STOP = "walk.json", "stop"
_NO_IDENTITY = ("job", "clip", "cluster", "tracking", "store", "experiment")  # may differ between two starts of one run
_GOES_ON = ("rounds", "patience")  # a run goes on when these grow


def write_about(run: Path, file: str, told: Mapping[str, Any]) -> None:
    """Write one of a run's JSON files, whole or not at all."""
    write_durably(run / file, json.dumps(told, indent=1).encode())


def read_about(run: Path, file: str) -> Mapping[str, Any]:
    """One of a run's JSON files. Raises InputError when it is not there."""
    path = run / file
    if not path.is_file():
        raise InputError(f"{path} does not exist: the run has not come so far; start or go on with jobs.self_train")
    told: dict[str, Any] = json.loads(path.read_text())
    return told


@contextmanager
def walking(run: Path) -> Iterator[Callable[[int], None]]:
    """Say in the run's directory that its rounds are being walked; the callable says which is next."""

    def tell(index: int) -> None:
        write_about(run, WALK, {"round": index, "host": socket.gethostname(), "pid": os.getpid(), "since_s": round(time.time())})

    (run / STOP).unlink(missing_ok=True)
    tell(0)
    try:
        yield tell
    finally:
        for file in (WALK, STOP):
            (run / file).unlink(missing_ok=True)


def walk_of(run: Path) -> str:
    """What the job of a run is doing, for a person."""
    if not (run / WALK).is_file():
        return (
            "finished" if (run / SUMMARY).is_file() else "no job is walking these rounds now; the same command goes on with them"
        )
    told = read_about(run, WALK)
    place = f"process {told['pid']} on {told['host']}"
    if told["host"] == socket.gethostname() and not Path(f"/proc/{told['pid']}").exists():
        return f"{place} was killed in round {told['round']}; the same command goes on there"
    stopping = "; it stops after this round" if (run / STOP).exists() else ""
    return f"{place} is in round {told['round']}, for {round(time.time()) - told['since_s']} s{stopping}"


def stop_walk(run: Path) -> None:
    """Ask the job of a run to end after the round it is in. Raises InputError when none walks it."""
    if not (run / WALK).is_file():
        raise InputError(f"no job is walking the rounds of {run.name}: there is nothing to stop")
    (run / STOP).touch()


def find_run(store: Path, settings: Mapping[str, Any]) -> Path:
    """The run of these settings; else, saying so, the latest of the same name. Raises InputError when there is none."""
    name = str(settings["name"])
    started = [path for path in (store / "runs").glob(f"{name}-*") if (path / SETTINGS).is_file()]
    runs = [path for path in started if read_about(path, SETTINGS)["name"] == name]
    if not runs:
        others = sorted({str(read_about(path.parent, SETTINGS)["name"]) for path in (store / "runs").glob(f"*/{SETTINGS}")})
        known = f"runs there are called {', '.join(others)}" if others else "no run was started there"
        raise InputError(f"no run called {name!r} in {store}: {known}; say name=... or experiment=..., and store=...")
    asked = decisive(settings)
    if same := [path for path in runs if decisive(read_about(path, SETTINGS)) == asked]:
        return same[0]
    latest = max(runs, key=lambda path: (path / SETTINGS).stat().st_mtime)
    print(f"no run called {name!r} has exactly these settings; this is the latest, {latest.name}", file=sys.stderr, flush=True)
    return latest


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of the settings decides a run's results."""
    kept = {key: value for key, value in settings.items() if key not in _NO_IDENTITY}
    kept["rounds"] = {key: value for key, value in kept.get("rounds", {}).items() if key not in _GOES_ON}
    told: dict[str, Any] = json.loads(json.dumps(kept, sort_keys=True))
    return told


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("_target_", "class")
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
