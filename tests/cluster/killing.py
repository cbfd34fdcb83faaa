"""Kills processes of one's own, as a spot machine or the kernel would."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ENCODER, DECODER = "ray::MapWorker(MapBatches(EncodeClips))", "-m orchestrator.media.child"
FITTER = "ray::RayTrainWorker"


@contextmanager
def killing(names: Sequence[str], *, pause_s: float = 0.0) -> Iterator[list[str]]:
    """Kills one process below this one for each of `names`, as soon as there is one and `pause_s` after the last."""
    killed: list[str] = []
    over = threading.Event()

    def hunt() -> None:
        due = list(names)
        while due and not over.wait(pause_s if killed else 0.0):
            while due and not over.wait(0.02):
                if found := [pid for pid, words in below(os.getpid()).items() if due[0] in words]:
                    os.kill(found[0], signal.SIGKILL)
                    killed.append(due.pop(0))
                    break

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield killed
    finally:
        over.set()
        hunter.join()


def below(ancestor: int) -> dict[int, str]:
    """Command lines of the processes below one, by id: never those of a stranger's cluster on the same machine."""
    parents, words = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    family, size = {ancestor}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return {pid: words[pid] for pid in family - {ancestor} if pid in words}
