"""What MLflow is told of a run, while it goes on: a parent run, a child a round, and what came of it at the end.

The driver tells; the controller fits the next round meanwhile. A server that does not answer costs seconds, once a minute.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from csv import writer
from pathlib import Path
from typing import Any

from orchestrator.cluster.run import Run
from orchestrator.cluster.trials import Trial
from orchestrator.reports.ablation import COLUMNS, AblationTable, ablation_rows
from orchestrator.reports.page import Scores
from orchestrator.settings import Experiment
from orchestrator.stores.artifacts import write_durably
from orchestrator.stores.tracking import Tracker, open_tracker
from orchestrator.vocabulary import Ints, RoundRecord

_ELSEWHERE = ("job", "clip", "cluster", "tracking")  # no setting of a run's results


@contextmanager
def announced(experiment: Experiment, run: Run, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """The run stands in MLflow as long as the block runs; it ends FINISHED, FAILED or KILLED, as the block does."""
    tracker = tracker_of(experiment)
    tracker.run(run.name, run.name, tags={"store": str(run.directory)})
    tracker.params(run.name, {key: value for key, value in settings.items() if key not in _ELSEWHERE})
    try:
        yield tracker
    except BaseException as error:
        tracker.close(run.name, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.close(run.name)


def tracker_of(experiment: Experiment) -> Tracker:
    """Where this experiment's runs are told."""
    return open_tracker(experiment.tracking.uri, experiment.tracking.experiment, experiment.store)


def tell_round(tracker: Tracker, run: Run, record: RoundRecord) -> None:
    """A finished round: a point on the run's curves, and a child run of its own."""
    child = f"{run.name}/round-{record.index}"
    tracker.metrics(run.name, metrics_of(record), step=record.index)
    tracker.run(child, f"round {record.index}", parent=run.name, tags={"verdict": record.verdict.value})
    about = {"reason": record.reason, "student": record.student, "teacher": record.teacher or "human labels"}
    tracker.params(child, about)
    tracker.metrics(child, metrics_of(record), step=record.index)
    tracker.close(child)


def tell_end(
    tracker: Tracker,
    experiment: Experiment,
    run: Run,
    *,
    out_of_fold: Scores,
    test: Scores,
    champion: Path,
    files: Sequence[Path],
) -> None:
    """Scores by modality subset, the files of the run, its champion in the registry."""
    for name, scores in {"val": out_of_fold, "test": test}.items():
        flat = {
            f"{name}_{model}_{subset}_{k}": v for model, by in scores.items() for subset, s in by.items() for k, v in s.items()
        }
        tracker.metrics(run.name, flat)
    for path in files:
        tracker.artifact(run.name, path)
    tracker.artifact(run.name, champion)
    tracker.champion(experiment.name, run.name, champion.name)


def tell_trials(tracker: Tracker, key: str, name: str, trials: Sequence[Trial]) -> None:
    """A parent run of a search or an ablation, a child a trial; the best trial's settings and score on the parent."""
    tracker.run(key, name)
    for trial in trials:
        child = tracker.run(f"{key}/{trial.name}", trial.name, parent=key)
        tracker.params(child, trial.setting)
        if trial.failure:
            tracker.params(child, {"failure": trial.failure})
        for record in trial.records:
            tracker.metrics(child, metrics_of(record), step=record.index)
        tracker.close(child, "FAILED" if trial.failure else "FINISHED")


def tell_ablation(experiment: Experiment, tables: Sequence[AblationTable], trials: Sequence[Trial], page: Path) -> None:
    """A parent run with the page and the tables as CSV, a child a row and seed."""
    tracker = tracker_of(experiment)
    key = f"ablation/{experiment.name}/{experiment.seed}"
    tell_trials(tracker, key, f"ablation {experiment.name}", trials)
    for table in tables:
        told = {f"{table.title}.{row}": [cell.waf for cell in cells if cell] for row, cells in table.rows.items()}
        tracker.metrics(key, {name: sum(values) / len(values) for name, values in told.items() if values})
        tracker.artifact(key, write_csv(page.with_name(f"{page.stem}-{table.title}.csv"), COLUMNS, ablation_rows(table)))
    tracker.artifact(key, page)
    tracker.close(key)


def metrics_of(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round."""
    told = {"val_waf": record.val_f1, "val_uar": record.val_uar, "val_accuracy": record.val_accuracy, "val_ece": record.val_ece}
    told |= {"pseudo_labels": float(sum(record.accepted_per_class)), "seconds": record.seconds}
    return told | ({} if record.pool_precision is None else {"pool_precision": record.pool_precision})


def write_confusion(path: Path, counts: Ints, names: Sequence[str]) -> Path:
    """Counts as CSV, rows the truth; returns the path."""
    return write_csv(path, ("truth \\ said", *names), [(n, *row) for n, row in zip(names, counts.tolist(), strict=True)])


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """A table as CSV, whole or not at all; returns the path."""
    lines = io.StringIO()
    writer(lines, lineterminator="\n").writerows([columns, *rows])
    write_durably(path, lines.getvalue().encode())
    return path
