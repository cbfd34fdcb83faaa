"""The rounds of a run on disk, a directory each: what was decided, by whom, about which clip.

    <run>/rounds/01/record.json  labelled.parquet  pool-0.parquet ...  labels.parquet  decisions.parquet   (round 0: no last two)

A round is committed whole by one rename; its record is what `run_rounds` reads back after a crash.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.decisions import decisions
from orchestrator.seams import Json
from orchestrator.stores.artifacts import ArtifactStore
from orchestrator.stores.ledger import DECISIONS, count_reasons, write_decisions
from orchestrator.stores.tables import read_predictions, read_pseudo_labels, write_predictions, write_pseudo_labels
from orchestrator.vocabulary import Predictions, PseudoLabels, RoundRecord, Verdict

KIND = "rounds"


class RoundLedger:
    """`Ledger` of `rounds.self_training`, below a run's directory."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._store = ArtifactStore(run)

    def find(self, index: int) -> RoundRecord | None:
        """The record of a finished round. Raises DamagedArtifact when its files are not what was written."""
        if self._store.find(KIND, _name(index)) is None:
            return None
        told = cast(dict[str, Any], self._store.record(KIND, _name(index))["round"])
        per_class = {name: tuple(told[name]) for name in ("accepted_per_class", "threshold_per_class")}
        return RoundRecord(**{**told, **per_class, "verdict": Verdict(told["verdict"])})

    def write(self, record: RoundRecord, scored: Scored, labels: PseudoLabels | None) -> RoundRecord:
        """Commit a round; when another process was first, its round stands and is returned."""
        with self._store.write(KIND, _name(record.index), {"round": cast(Json, asdict(record))}) as directory:
            write_predictions(directory / "labelled.parquet", scored.labelled)
            for fold, pool in enumerate(scored.pool):
                write_predictions(directory / f"pool-{fold}.parquet", pool)
            if labels is not None:
                write_pseudo_labels(directory / "labels.parquet", labels)
                taught_by = self._pool_as_seen_by(record.teacher, record.index)
                write_decisions(directory / DECISIONS, decisions(taught_by, labels), taught_by, record.index)
        kept = self.find(record.index)
        assert kept is not None
        return kept

    def scored(self, index: int) -> Scored:
        """Calibrated predictions of a finished round."""
        directory = self._directory(index)
        folds = len(list(directory.glob("pool-*.parquet")))
        return Scored(
            labelled=read_predictions(directory / "labelled.parquet"),
            pool=tuple(read_predictions(directory / f"pool-{fold}.parquet") for fold in range(folds)),
        )

    def labels(self, index: int) -> PseudoLabels | None:
        """Pseudo-labels a round learnt from, None for round 0."""
        path = self._directory(index) / "labels.parquet"
        return read_pseudo_labels(path) if path.is_file() else None

    def reasons(self, index: int) -> dict[str, int]:
        """How many pool clips a round took or left, and why; empty for round 0."""
        path = self._directory(index) / DECISIONS
        return count_reasons(path) if path.is_file() else {}

    def _pool_as_seen_by(self, student: str | None, before: int) -> Predictions:
        """The pool as the ensemble that an earlier round made saw it, calibrated."""
        made = [index for index in range(before) if (record := self.find(index)) and record.student == student]
        return self.scored(made[0]).ensemble

    def _directory(self, index: int) -> Path:
        directory = self._store.find(KIND, _name(index))
        if directory is None:
            raise FileNotFoundError(f"round {index} of {self.run} is not finished")
        return directory


def _name(index: int) -> str:
    return f"{index:02d}"
