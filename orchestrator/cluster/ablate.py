"""Ablations: every row of a table trained with several seeds on the same stored features, compared seed by seed.

    rows x seeds ─► features of each row (found, not made again) ─► `trials.run_trials` ─► scores by subset ─► tables
                    folds frozen anew for each seed, the same for all rows                  kept beside each run

A row is the student of its last round, whether or not the guard would hand it out: else every policy that the guard stops would
look like no policy. It is judged out of fold on human labels, which is what to choose by. The test column is what a paper prints:
whoever picks the best row by it has spent the test split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orchestrator.cluster.corpus import Corpus, frozen_folds, gather
from orchestrator.cluster.publish import score_test
from orchestrator.cluster.report import RunStory
from orchestrator.cluster.run import Run
from orchestrator.cluster.trials import Trial, run_trials
from orchestrator.reports.ablation import AblationTable, Cell
from orchestrator.settings import Experiment
from orchestrator.stores.artifacts import write_durably
from orchestrator.stores.fingerprint import fingerprint
from orchestrator.vocabulary import Split

_SCORES = "scores.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its name, "table: row", and its experiment with the first seed."""

    name: str
    experiment: Experiment


def ablate(rows: Sequence[Row], seeds: int) -> tuple[list[AblationTable], list[Trial]]:
    """Train what is missing, every row with so many seeds; the tables, and every trial with its failure if it had one."""
    trials, corpora = [], []
    gathered: list[tuple[Experiment, Corpus]] = []
    for row in rows:
        first = row.experiment
        corpus = next((corpus for seen, corpus in gathered if _same_features(seen, first)), None) or gather(first)
        gathered.append((first, corpus))  # rows that share features share their memory
        for seed in range(first.seed, first.seed + seeds):
            seeded = replace(first, seed=seed, rounds=replace(first.rounds, seed=seed))
            trials.append(Trial({"row": row.name, "seed": seed}, seeded))
            corpora.append(corpus if seed == first.seed else refolded(corpus, seeded))
    done = run_trials(trials, corpora, rows[0].experiment.store / "tune")
    cells: dict[str, list[Cell | None]] = {row.name: [] for row in rows}
    for trial, corpus in zip(done, corpora, strict=True):
        cells[str(trial.setting["row"])].append(None if trial.failure else _cell(trial, corpus))
    tables: dict[str, dict[str, list[Cell | None]]] = {}
    for name, found in cells.items():
        table, _, row_name = name.rpartition(":")
        tables.setdefault(table.strip() or "ablation", {})[row_name.strip()] = found
    return [AblationTable(title, by_row) for title, by_row in tables.items()], done


def _same_features(one: Experiment, other: Experiment) -> bool:
    after = {name: getattr(one, name) for name in ("fusion", "selection", "mixing", "rounds")}
    return one == replace(other, **after)


def refolded(corpus: Corpus, experiment: Experiment) -> Corpus:
    """The same clips and features with folds frozen by another seed. Tuned prompts keep their folds: they were tuned by them."""
    if experiment.prompts is not None:
        return corpus
    folds = frozen_folds(corpus.clips, experiment)
    kept = np.array([folds[corpus.clips[i].clip_id] for i in corpus.indices(Split.LABELLED)], dtype=np.int64)
    return replace(corpus, folds=kept, identity=fingerprint("refolded", corpus.identity, kept.tolist()))


def _cell(trial: Trial, corpus: Corpus) -> Cell:
    """Scores of a trial's last student, found beside its run or worked out and kept there."""
    run, last = Run.of(trial.experiment, corpus), trial.records[-1]
    path = run.directory / _SCORES
    known: dict[str, Mapping[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    if last.student not in known:
        test = score_test(trial.experiment, corpus, {"last": last.student})
        out_of_fold = RunStory(trial.experiment, corpus, run, {}).scores(last)
        known[last.student] = {"out_of_fold": out_of_fold, "test": test.scores["last"] if test else None}
        write_durably(path, json.dumps(known).encode())
    return Cell.read(known[last.student], handed_out=trial.best.student == last.student)
