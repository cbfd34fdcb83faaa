"""How busy each stage of a pipeline is: blocks report what they took, the driver shows it while the work runs.

decode tasks, encoder actors ──add(stage, clips, seconds)──► Meter (one actor, 0 CPU) ◄──read()── driver
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import ray


class Meter:
    """Clips and seconds by stage."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, float]] = {}

    def add(self, stage: str, clips: int, seconds: float) -> None:
        """A block of `clips` kept a worker of this stage busy for `seconds`."""
        done, busy = self._told.get(stage, (0, 0.0))
        self._told[stage] = (done + clips, busy + seconds)

    def read(self) -> dict[str, tuple[int, float]]:
        """Clips done and worker-seconds spent, by stage."""
        return self._told


@dataclass(frozen=True, slots=True)
class Load:
    """What one stage has done so far.

    - `waiting`: clips that the stage before has finished and this one has not. `clip_s`: worker-seconds a clip.
    - `busy`: workers that were at work on average, of `most`.
    """

    stage: str
    done: int
    waiting: int
    clip_s: float
    busy: float
    most: int | None


class Stages:
    """The driver's view of a meter; stages in the order clips pass them, with the most workers each may have."""

    def __init__(self, stages: Mapping[str, int | None]) -> None:
        self.meter: Any = ray.remote(num_cpus=0)(Meter).remote()
        self._stages = stages
        self._started = monotonic()

    def loads(self) -> Sequence[Load]:
        """How things stand now."""
        told = ray.get(self.meter.read.remote())
        elapsed = monotonic() - self._started
        loads: list[Load] = []
        for stage, most in self._stages.items():
            done, seconds = told.get(stage, (0, 0.0))
            waiting = max(0, loads[-1].done - done) if loads else 0
            loads.append(Load(stage, done, waiting, seconds / max(1, done), seconds / elapsed, most))
        return loads

    def line(self) -> str:
        """One clause a stage, for a line of progress."""
        return "; ".join(
            f"{load.stage} {load.busy:.1f} busy" + (f", {load.waiting} waiting" if load.waiting else "") for load in self.loads()
        )

    def rows(self) -> list[tuple[str, ...]]:
        """A table: stage, clips, milliseconds a clip, workers busy on average, and the most there may be."""
        return [
            (
                load.stage,
                str(load.done),
                f"{1000 * load.clip_s:.0f}",
                f"{load.busy:.2f}",
                "" if load.most is None else str(load.most),
            )
            for load in self.loads()
        ]
