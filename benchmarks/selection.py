"""Rows a CPU second and memory of every selection policy: `OMP_NUM_THREADS=1 python -m benchmarks.selection [--clips 10000000]`.

The pool is made of random logits of 6 classes, in clip order, as stores hand it over.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from orchestrator.rounds.adaptive import FlexMatch, FreeMatch, SoftMatch
from orchestrator.rounds.alignment import Aligned, Soft
from orchestrator.rounds.consensus import Agreement
from orchestrator.rounds.selection import Cbst, ClassQuantile, Crest, FixedThreshold, Growing, PrecisionTargeted, QuotaShare, Ups
from orchestrator.seams import SelectionPolicy
from orchestrator.vocabulary import Predictions

POLICIES: dict[str, SelectionPolicy] = {
    "fixed threshold": FixedThreshold(0.8),
    "class quantile": ClassQuantile(0.5),
    "precision targeted": PrecisionTargeted(0.7),
    "CReST": Crest(),
    "CBST": Cbst(Growing(0.2, 0.05, 0.5)),
    "quota share": QuotaShare(),
    "UPS": Ups(),
    "FlexMatch": FlexMatch(0.9),
    "FreeMatch": FreeMatch(),
    "SoftMatch": SoftMatch(),
    "2 of 3 voices": Agreement(FixedThreshold(0.5), least=2),
    "aligned CBST": Aligned(Cbst(), to="labelled"),
    "prior by EM": Aligned(FixedThreshold(0.8), to="pool"),
    "soft targets": Soft(FixedThreshold(0.8)),
}


def random_teacher(clips: int, seed: int) -> Predictions:
    """Logits with a right answer somewhere in them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(clips, 6)).astype(np.float32)
    logits *= 2
    ids = np.arange(10**9, 10**9 + clips).astype("<U10")
    votes = rng.integers(-1, 6, (clips, 3), dtype=np.int8)
    return Predictions(
        ids, logits, "teacher", votes=votes, voices=("A", "V", "T"), uncertainty=rng.uniform(0, 0.2, clips).astype(np.float32)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=10_000_000)
    clips: int = parser.parse_args().clips
    pool, judged = random_teacher(clips, 0), random_teacher(5030, 1)
    truth = judged.logits.argmax(axis=1)
    truth[::4] = (truth[::4] + 1) % 6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{clips:,} clips x 6 classes; pool and process {before:.2f} GiB")
    print(f"{'policy':20}{'CPU s':>8}{'M rows/s':>10}{'accepted':>12}{'peak GiB':>10}")
    for name, policy in POLICIES.items():
        started = time.process_time()
        labels = policy.select(pool, judged=judged, truth=truth, round_index=1)
        seconds = time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:20}{seconds:8.2f}{clips / seconds / 1e6:10.2f}{len(labels):12,}{peak:10.2f}", flush=True)
        del labels


if __name__ == "__main__":
    main()
