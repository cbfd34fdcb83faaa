"""Progress of long work: a live bar on a terminal, one line every few seconds in a job's log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
    note: Callable[[], str] | None = None
    done: int = 0
    started: float = field(default_factory=monotonic)
    told: float = field(default_factory=monotonic)

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        if self.live is not None:
            if self.note is not None:
                self.live.update(self.live.task_ids[0], description=f"{self.title} ({self.note()})")
            self.live.advance(self.live.task_ids[0], count)
        elif monotonic() - self.told >= LINE_EVERY_S or (count and self.done == self.total):
            self.told = monotonic()
            print(self.line(), flush=True)

    def reach(self, left: int) -> None:
        """One more is done, `left` are still to do: for work whose size is known once it has begun."""
        self.total = self.done + 1 + left
        if self.live is not None:
            self.live.update(self.live.task_ids[0], total=self.total)
        self.advance(1)

    def line(self) -> str:
        """Where it stands: done, rate, how long it still takes at that rate, and what `note` has to say."""
        seconds = max(1e-9, monotonic() - self.started)
        rate = self.done / seconds
        left = "" if not self.done or self.done >= self.total else f", {_span((self.total - self.done) / rate)} left"
        share = self.done / max(1, self.total)
        said = f"; {self.note()}" if self.note else ""
        return f"{self.title}: {self.done} of {self.total} ({share:.0%}) in {_span(seconds)}, {rate:.1f}/s{left}{said}"


@contextmanager
def progress(total: int, title: str, *, note: Callable[[], str] | None = None) -> Iterator[Bar]:
    """A bar for the length of a block; `note` says more whenever it is drawn."""
    if not sys.stdout.isatty():
        yield Bar(total, title, note=note)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as live:
        live.add_task(title, total=total)
        yield Bar(total, title, live, note)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
