"""Progress of long work: a live bar on a terminal, one line every few seconds in a job's log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


@dataclass(slots=True)
class Bar:
    """Counts towards `total`."""

    total: int
    title: str
    live: Progress | None = None
    done: int = 0
    started: float = field(default_factory=monotonic)
    told: float = field(default_factory=monotonic)

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        if self.live is not None:
            self.live.advance(self.live.task_ids[0], count)
        elif monotonic() - self.told >= LINE_EVERY_S or self.done >= self.total:
            self.told = monotonic()
            rate = self.done / max(1e-9, self.told - self.started)
            print(f"{self.title}: {self.done} of {self.total} ({self.done / self.total:.0%}), {rate:.1f}/s", flush=True)


@contextmanager
def progress(total: int, title: str) -> Iterator[Bar]:
    """A bar for the length of a block."""
    if not sys.stdout.isatty():
        yield Bar(total, title)
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as live:
        live.add_task(title, total=total)
        yield Bar(total, title, live)
