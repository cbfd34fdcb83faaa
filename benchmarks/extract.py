"""What extraction costs beyond its models: against a plain loop, and as the corpus grows.

    python -m benchmarks.extract ratio                  ViT-B/32-sized CLIP, random weights, 2 cores: about 6 minutes
    python -m benchmarks.extract growth                 50, 500 and 5,000 clips, embedded encoders: about 8 minutes
    python -m benchmarks.extract ratio --clips 48       any size

The loop decodes and encodes one clip after the other in one process, with as many threads as there are cores; half of it runs
before the pipeline and half after, so that a machine that slows down slows both. Steady state is the middle of a run, from a
quarter to nine tenths of the clips; what a run takes beyond its clips at that rate is its fixed cost: cluster, actors, models,
first and last blocks. CPU seconds are those of the whole process tree, and hardly change when somebody else uses the machine;
those of the loop are taken on one thread, since several burn time waiting for each other when the machine is busy.

Clips: drawn toy films (5 s, 112 px, with sound), copied with a box of their own number at the end, so that no two are equal.
"""

from __future__ import annotations

import argparse
import logging
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from orchestrator.cluster.extract import extract
from orchestrator.cluster.session import session
from orchestrator.encoders.clip import RANDOM, OpenClip
from orchestrator.encoders.spectra import LogMelStatistics
from orchestrator.encoders.text import HashedNgrams
from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.media.digests import with_digests
from orchestrator.media.toy import write_toy_corpus
from orchestrator.seams import EncoderRecipe
from orchestrator.settings import ClusterSettings, PoolSettings
from orchestrator.stores.features import FeatureStore
from orchestrator.vocabulary import Clip, Split

DRAWN = 24  # different films; the rest are copies
STEADY = (0.25, 0.9)  # shares of a run
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Run:
    """One extraction.

    - `seconds`, `total_cpu_s`: in all, the start of the cluster included in the first alone.
    - `done`, `when`: how many clips had their last feature, and at what time. `cpu_s`: a clip's, in the steady part.
    - `memory_mb`: of the largest process of each kind, where the steady part begins and ends.
    """

    clips: int
    seconds: float
    total_cpu_s: float
    done: NDArray[np.int64]
    when: NDArray[np.float64]
    cpu_s: float
    memory_mb: Mapping[str, tuple[float, float]]

    def rate_at(self, start: float, end: float) -> float:
        """Clips a second between two shares of the clips."""
        first, last = (int(np.searchsorted(self.done, share * self.clips)) for share in (start, end))
        return float((self.done[last] - self.done[first]) / (self.when[last] - self.when[first]))

    @property
    def rate(self) -> float:
        return self.rate_at(*STEADY)

    @property
    def fixed_s(self) -> float:
        return self.seconds - self.clips / self.rate


def films(directory: Path, count: int) -> tuple[Clip, ...]:
    """Clips whose files differ, with the lines of the drawn ones."""
    drawn = sorted((write_toy_corpus(directory / "toy", clips=DRAWN).parent / "clips").glob("*.mp4"))
    clips = []
    for number in range(count):
        path = directory / f"{number:05d}.mp4"
        path.write_bytes(drawn[number % DRAWN].read_bytes() + struct.pack(">I4sQ", 16, b"free", number))
        clips.append(Clip(f"c{number:05d}", str(path), Split.UNLABELLED, transcript=f"That is line {number}, and I mean it."))
    return with_digests(clips, cache=directory / "digests")


def plain_loop(clips: Sequence[Clip], recipes: Sequence[EncoderRecipe], threads: int) -> tuple[float, float]:
    """Clips a second and CPU seconds a clip of one process, models warm."""
    torch.set_num_threads(threads)
    encoders = [recipe.load() for recipe in recipes]
    settings = DecodeSettings()
    for encoder in encoders:
        encoder.encode([decode(clips[0], settings)])
    began, cpu = time.perf_counter(), time.process_time()
    for clip in clips:
        decoded = decode(clip, settings)
        for encoder in encoders:
            encoder.encode([decoded])
    return len(clips) / (time.perf_counter() - began), (time.process_time() - cpu) / len(clips)


def pipeline(clips: Sequence[Clip], recipes: Sequence[EncoderRecipe], settings: ClusterSettings, directory: Path) -> Run:
    """The same by `extract`, a cluster and an empty store of its own."""
    store = directory / f"store-{len(clips)}"
    began = time.time()
    with session(settings), watching() as seen:
        rejected = extract(clips, recipes, DecodeSettings(), directory, FeatureStore(store), settings)
        ended = time.time()
    assert not rejected, rejected[:3]
    done, when = finished(store, recipes[-1].stream)
    first, last = (int(np.searchsorted(done, share * len(clips))) for share in STEADY)
    spent = np.array([moment.cpu_s for moment in seen])
    times = np.array([moment.at for moment in seen])
    used = np.interp(when[[first, last]], times, spent)
    middle = [seen[int(np.searchsorted(times, when[i]).clip(0, len(seen) - 1))].memory_mb for i in (first, last)]
    return Run(
        clips=len(clips),
        seconds=ended - began,
        total_cpu_s=float(spent[-1] - spent[0]),
        done=done,
        when=when,
        cpu_s=float(used[1] - used[0]) / max(1, int(done[last] - done[first])),  # a run of one block has no middle
        memory_mb={kind: (middle[0].get(kind, 0.0), middle[1].get(kind, 0.0)) for kind in middle[1]},
    )


def finished(store: Path, stream: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many clips had a row of a stream, and when: read off the shards, so that nothing is slowed by being watched."""
    shards = sorted((store / stream).rglob("*.parquet"), key=lambda path: path.stat().st_mtime)
    rows = [pq.read_metadata(path).num_rows for path in shards]
    return np.cumsum(rows), np.array([path.stat().st_mtime for path in shards])


@dataclass(frozen=True, slots=True)
class Moment:
    """The process tree at one time."""

    at: float
    cpu_s: float
    memory_mb: Mapping[str, float]


@contextmanager
def watching(every_s: float = 1.0) -> Iterator[list[Moment]]:
    """CPU time and memory of this process and all below it, as they go."""
    seen: list[Moment] = []
    over = threading.Event()

    def look() -> None:
        ended: dict[int, float] = {}  # a process that is gone has used what it had used when last seen
        while not over.wait(every_s):
            tree = processes()
            ended |= {pid: cpu for pid, (_, cpu, _) in tree.items()}
            largest: dict[str, float] = {}
            for kind, _, memory in tree.values():
                largest[kind] = max(largest.get(kind, 0.0), memory)
            seen.append(Moment(time.time(), sum(ended.values()), largest))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def processes() -> dict[int, tuple[str, float, float]]:
    """Kind, CPU seconds and resident megabytes of this process and all below it, by id."""
    told: dict[int, tuple[int, str, float, float]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        kind = "encoder" if "EncodeClips" in words else "decode child" if "media.child" in words else "other"
        told[int(path.name)] = (int(fields[1]), kind, (int(fields[11]) + int(fields[12])) / TICKS, int(fields[21]) * PAGE_MB)
    mine, size = {os.getpid()}, 0
    while len(mine) > size:
        size = len(mine)
        mine |= {pid for pid, (parent, *_) in told.items() if parent in mine}
    return {pid: ("driver" if pid == os.getpid() else told[pid][1], *told[pid][2:]) for pid in mine if pid in told}


def ratio(clips: int, cores: int, directory: Path) -> None:
    """Clips a second of the pipeline against the loop's."""
    recipes = [OpenClip(model="ViT-B-32", weights=RANDOM)]
    half = films(directory, clips)[: clips // 2]
    pools = {"video": PoolSettings(min_actors=cores, max_actors=cores, cpus=0.75)}
    settings = ClusterSettings(cpus=cores, clips_per_block=4, decode_cpus=0.25, pools=pools)
    before = plain_loop(half, recipes, cores)
    run = pipeline(films(directory, clips), recipes, settings, directory)
    after = plain_loop(half, recipes, cores)
    _, loop_cpu = plain_loop(half[: clips // 8], recipes, 1)
    loop_rate = 2 / (1 / before[0] + 1 / after[0])
    print(f"loop      {loop_rate:6.2f} clips/s ({before[0]:.2f} before, {after[0]:.2f} after)   {loop_cpu:.3f} CPU-s a clip")
    print(f"pipeline  {run.rate:6.2f} clips/s in its middle   {run.cpu_s:.3f} CPU-s a clip")
    print(
        f"pipeline / loop, clips a second: {run.rate / loop_rate:.3f}   loop / pipeline, CPU-s a clip: {loop_cpu / run.cpu_s:.3f}"
    )
    print(f"fixed cost: {run.fixed_s:.1f} s of {run.seconds:.0f} s")


def growth(few: int, many: int, cores: int, directory: Path) -> None:
    """What one more clip costs in a small corpus and in a large one, and what memory does meanwhile.

    One more clip, because cluster and actors cost the same in all: the CPU seconds between two sizes by the clips between them.
    Rates are those of the middle and of the end of the large run; its beginning is fast, as clips were decoded while the actors
    started.
    """
    recipes = [OpenClip(), LogMelStatistics(), HashedNgrams()]
    clips = films(directory, many)
    settings = ClusterSettings(cpus=cores, clips_per_block=16)
    least, small, large = (pipeline(clips[:size], recipes, settings, directory) for size in (few // 10, few, many))
    for run in (least, small, large):
        print(f"{run.clips} clips: {run.seconds:.0f} s, {run.total_cpu_s:.0f} CPU-s")
    first, more = ((b.total_cpu_s - a.total_cpu_s) / (b.clips - a.clips) for a, b in ((least, small), (small, large)))
    print(f"one more clip: {1000 * first:.1f} CPU-ms up to {few}, {1000 * more:.1f} from there to {many}: {more / first:.3f}")
    print(f"clips/s of {many}: {large.rate_at(0.4, 0.65):.2f} in the middle, {large.rate_at(0.7, 0.95):.2f} at the end")
    for kind, (early, late) in large.memory_mb.items():
        told = f"{early:.0f} MB at {STEADY[0]:.0%} of {many} clips, {late:.0f} MB at {STEADY[1]:.0%}"
        print(f"memory of the largest {kind}: {told}")


def main() -> None:
    """The commands of the header."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ratio", "growth"))
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--few", type=int, default=500)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    asked = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.cores])
    with tempfile.TemporaryDirectory() as directory:
        if asked.what == "ratio":
            ratio(asked.clips, asked.cores, Path(directory))
        else:
            growth(asked.few, asked.many, asked.cores, Path(directory))
    print(f"load of the machine over the last minutes: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


if __name__ == "__main__":
    main()
