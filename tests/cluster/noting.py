"""An encoder that writes down each clip it encodes, and a driver for it: `python -m tests.cluster.noting STORE MANIFEST`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.cluster.corpus import Corpus, gather
from orchestrator.cluster.session import session
from orchestrator.encoders.rows import encoded
from orchestrator.seams import Json
from orchestrator.settings import ClusterSettings
from orchestrator.vocabulary import DecodedClip, Encoded
from orchestrator.wiring import build, compose_config

BLOCK = 4  # clips that are encoded together


@dataclass(frozen=True, slots=True)
class Noting:
    """Mean colour, slowly enough to be killed at it."""

    notes: str
    stream: str = "video"
    reads: str = "video"

    def identity(self) -> Mapping[str, Json]:
        return {"encoder": "noting", "version": 1}

    def load(self) -> Noting:
        return self

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        with Path(self.notes).open("a") as file:
            file.write("".join(f"{clip.clip_id}\n" for clip in clips))
        time.sleep(0.1 * len(clips))
        return encoded(self.stream, clips, [clip.frames.mean(axis=(0, 1, 2)) for clip in clips], 3)


def noted(store: Path) -> list[str]:
    """Every clip encoded so far, as often as it was."""
    return (store / "notes").read_text().split()


def extract(store: Path, manifest: str) -> Corpus:
    """Features of every clip by the encoder above."""
    store.mkdir(exist_ok=True)
    quick = [f"data.manifest={manifest}", "data.folds=3", "data.within_speakers=false", f"cluster.clips_per_block={BLOCK}"]
    experiment, _ = build(compose_config([f"store={store}", *quick]))
    return gather(replace(experiment, encoders={"video": Noting(str(store / "notes"))}))


if __name__ == "__main__":
    with session(ClusterSettings(cpus=2)):
        extract(Path(sys.argv[1]), sys.argv[2])
