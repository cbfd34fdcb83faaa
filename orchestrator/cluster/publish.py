"""The end of a run: the best model scores the test split once, and everybody is told.

    records, ledger ─► champion ─► test door ─► predictions.parquet/.csv, report.html, summary.json ─► MLflow

Written below the run's directory; doing it again writes the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import metrics
from orchestrator.cluster.corpus import Corpus, pool_truth
from orchestrator.cluster.run import Run, load_student
from orchestrator.cluster.search import Trial
from orchestrator.cluster.steps import predict, subset_labels
from orchestrator.reports.console import show_rounds, show_rows, show_scores
from orchestrator.reports.page import ReportData, Scores, write_report
from orchestrator.rounds.crossfit import combined
from orchestrator.rounds.doubts import novelties, suspects, worth_labelling
from orchestrator.rounds.self_training import best_of
from orchestrator.settings import Experiment
from orchestrator.stores.artifacts import write_durably
from orchestrator.stores.tables import write_answers
from orchestrator.stores.tracking import Tracker, open_tracker, witnessed
from orchestrator.vocabulary import Predictions, RoundRecord, Split

NOTE = (
    "Out-of-fold scores: every labelled clip is judged by models that never saw its label, nor a pseudo-label given by one "
    "that did. The test split was scored once, after the last round."
)


def publish(
    experiment: Experiment, corpus: Corpus, run: Run, records: Sequence[RoundRecord], *, settings: Mapping[str, Any]
) -> None:
    """Write predictions, report and summary, tell MLflow, print what a person wants to know."""
    best = best_of(list(records))
    test = score_test(experiment, corpus, records)
    out_of_fold = {name: _out_of_fold(experiment, corpus, r) for name, r in {"supervised": records[0], "final": best}.items()}
    answers = answer_all(experiment, corpus, run, best)
    write_answers(run.directory / "predictions", answers, _splits(corpus), experiment.emotions)
    write_report(run.directory / "report.html", report_data(experiment, corpus, run, records, out_of_fold, test))
    summary = {
        "name": run.name,
        "champion": best.student,
        "calibration": {"scale": answers.scale.tolist(), "bias": answers.bias.tolist()},
        "streams": corpus.fingerprints,
        "rounds": [asdict(record) for record in records],
        "out_of_fold": out_of_fold,
        "test": test,
    }
    write_durably(run.directory / "summary.json", json.dumps(summary, indent=1).encode())
    tracker_uri = _tell_mlflow(experiment, run, records, test, settings)
    show_rounds(records)
    show_scores("test split, unseen until now" if test else "out of fold (no test clip has a label)", test or out_of_fold)
    print(f"report       {run.directory / 'report.html'}")
    print(f"predictions  {run.directory / 'predictions.csv'} and .parquet")
    print(f"MLflow       mlflow ui --backend-store-uri {tracker_uri}")


def score_test(experiment: Experiment, corpus: Corpus, records: Sequence[RoundRecord]) -> Scores:
    """The one door to the test split's labels: round 0 and the final model, by modality subset. Empty when none has a label."""
    index = corpus.indices(Split.TEST)
    truth = np.array([-1 if (label := corpus.clips[i].label) is None else label for i in index], dtype=np.int64)
    known = truth >= 0
    if not known.any():
        return {}
    features = corpus.features.rows(index[known])
    unseen = np.full(len(features), -1)
    models = {"supervised": records[0], "final": best_of(list(records))}
    return {
        name: _scores(subset_labels(load_student(experiment.store, record.student), features, unseen), truth[known])
        for name, record in models.items()
    }


def answer_all(experiment: Experiment, corpus: Corpus, run: Run, best: RoundRecord) -> Predictions:
    """The champion on every clip of the corpus: out of fold for labelled ones, calibrated as in its round."""
    folds = np.full(len(corpus.clips), -1)
    folds[corpus.indices(Split.LABELLED)] = corpus.folds
    told = predict(load_student(experiment.store, best.student), corpus.features, folds, best.student)
    calibration = run.ledger.scored(best.index).labelled
    return replace(told, scale=calibration.scale, bias=calibration.bias)


def report_data(
    experiment: Experiment, corpus: Corpus, run: Run, records: Sequence[RoundRecord], out_of_fold: Scores, test: Scores
) -> ReportData:
    """Everything the page shows."""
    best = best_of(list(records))
    scored = run.ledger.scored(best.index)
    judged, pool, truth = scored.labelled, scored.ensemble, corpus.truth
    raw = replace(judged, scale=np.ones(1, np.float32), bias=np.zeros(1, np.float32))
    names = experiment.emotions.names
    novelty = novelties(corpus.of(Split.UNLABELLED), corpus.of(Split.LABELLED)) if len(pool) else None
    doubtful = [
        (w.clip_id, f"doubt {w.doubt:.2f}, disagreement {w.disagreement:.2f}, novelty {w.novelty:.2f}")
        for w in (worth_labelling(pool, novelty=novelty) if len(pool) else ())
    ]
    wrong = [
        (s.clip_id, f"{names[s.given]}? rather {names[s.suggested]}, by {s.margin:.2f}") for s in suspects(judged, truth)[:20]
    ]
    return ReportData(
        title=run.name,
        emotions=experiment.emotions,
        counts={split.value: len(corpus.indices(split)) for split in Split} | {"rejected": len(corpus.rejected)},
        records=records,
        confusion=metrics.confusion(truth, judged.logits.argmax(axis=1), len(names)),
        reliability={"calibrated": _reliability(judged, truth), "raw": _reliability(raw, truth)},
        out_of_fold=out_of_fold,
        test=test or None,
        precision_by_class=_precision_by_class(experiment, corpus, run, records),
        rejected=corpus.rejected,
        doubtful=doubtful,
        suspect=wrong,
        notes=(NOTE,),
    )


def publish_search(experiment: Experiment, ranked: Sequence[Trial]) -> None:
    """Print the trials, best first, and tell MLflow: a parent run, a child a trial."""
    keys = list(ranked[0].setting)
    rows = [
        (f"{t.best.val_f1:.3f}", f"{t.best.val_uar:.3f}", str(len(t.records)), *(str(t.setting[key]) for key in keys))
        for t in ranked
    ]
    show_rows("trials by out-of-fold WAF", ("WAF", "UAR", "rounds", *keys), rows)
    print("best: " + " ".join(f"{key}={value}" for key, value in ranked[0].setting.items()))
    with witnessed():
        tracker = open_tracker(experiment.tracking.uri, experiment.tracking.experiment, experiment.store)
        key = f"search/{experiment.name}/{'/'.join(keys)}/{len(ranked)}/{experiment.seed}"
        parent = tracker.run(key, f"search {experiment.name}")
        for trial in ranked:
            told = ", ".join(f"{name}={value}" for name, value in trial.setting.items())
            child = tracker.run(f"{key}/{told}", told, parent=parent)
            tracker.params(child, trial.setting)
            _tell_rounds(tracker, child, trial.records)
            tracker.close(child)
        tracker.params(parent, {f"best.{name}": value for name, value in ranked[0].setting.items()})
        tracker.metrics(parent, {"val_waf": ranked[0].best.val_f1})
        tracker.close(parent)


def compare(store: Path) -> list[tuple[str, ...]]:
    """Rows of every finished run: name, rounds, out-of-fold WAF of round 0 and of the end, test WAF of both; best first."""
    rows = []
    for path in sorted((store / "runs").glob("*/summary.json")):
        told = json.loads(path.read_text())
        ends = [told["out_of_fold"][model] for model in ("supervised", "final")]
        ends += [told["test"][model] for model in ("supervised", "final")] if told["test"] else [None, None]
        rows.append(
            (
                told["name"],
                str(len(told["rounds"]) - 1),
                *("" if e is None else f"{list(e.values())[-1]['waf']:.3f}" for e in ends),
            )
        )
    return sorted(rows, key=lambda row: row[3], reverse=True)


def _tell_mlflow(
    experiment: Experiment, run: Run, records: Sequence[RoundRecord], test: Scores, settings: Mapping[str, Any]
) -> str:
    uri = experiment.tracking.uri or f"sqlite:///{experiment.store / 'mlflow.db'}"
    with witnessed():
        tracker = open_tracker(experiment.tracking.uri, experiment.tracking.experiment, experiment.store)
        parent = tracker.run(run.name, run.name)
        tracker.params(parent, {key: value for key, value in settings.items() if key != "job"})
        _tell_rounds(tracker, parent, records)
        for record in records:
            child = tracker.run(f"{run.name}/round-{record.index}", f"round {record.index}", parent=parent)
            _tell_rounds(tracker, child, [record])
            tracker.close(child)
        flat = {f"test_{model}_{subset}_{k}": v for model, by in test.items() for subset, s in by.items() for k, v in s.items()}
        tracker.metrics(parent, flat)
        for name in ("report.html", "summary.json", "predictions.csv"):
            tracker.artifact(parent, run.directory / name)
        champion = experiment.store / "fusion" / best_of(list(records)).student
        tracker.artifact(parent, champion)
        tracker.champion(experiment.name, parent, champion.name)
        tracker.close(parent)
    return uri


def _tell_rounds(tracker: Tracker, run: str, records: Sequence[RoundRecord]) -> None:
    for r in records:
        told = {"val_waf": r.val_f1, "val_uar": r.val_uar, "val_accuracy": r.val_accuracy, "val_ece": r.val_ece}
        told |= {"pseudo_labels": float(sum(r.accepted_per_class)), "seconds": r.seconds}
        told |= {} if r.pool_precision is None else {"pool_precision": r.pool_precision}
        tracker.metrics(run, told, step=r.index)


def _out_of_fold(experiment: Experiment, corpus: Corpus, record: RoundRecord) -> dict[str, dict[str, float]]:
    ensemble = load_student(experiment.store, record.student)
    return _scores(subset_labels(ensemble, corpus.of(Split.LABELLED), corpus.folds), corpus.truth)


def _scores(by_subset: Mapping[str, NDArray[np.int64]], truth: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    return {subset: dict(metrics.scores(truth, said)) for subset, said in by_subset.items()}


def _reliability(predictions: Predictions, truth: NDArray[np.int64]) -> NDArray[np.float64]:
    probabilities = predictions.probabilities
    right = (probabilities.argmax(axis=1) == truth).astype(np.int64)
    return metrics.reliability(probabilities.max(axis=1), right)


def _precision_by_class(
    experiment: Experiment, corpus: Corpus, run: Run, records: Sequence[RoundRecord]
) -> dict[int, list[float | None]] | None:
    """Share of accepted labels that are true, by round and class, where the truth is known."""
    pool = [corpus.clips[i] for i in corpus.indices(Split.UNLABELLED)]
    truth = pool_truth(experiment, pool)
    if truth is None:
        return None
    known = {clip.clip_id: label for clip, label in zip(pool, truth.tolist(), strict=True) if label >= 0}
    told: dict[int, list[float | None]] = {}
    for record in records:
        labels = run.ledger.labels(record.index)
        if labels is None or not len(labels):
            continue
        single = combined(labels, int(corpus.folds.max()) + 1)
        hits: Counter[int] = Counter()
        seen: Counter[int] = Counter()
        for clip_id, label in zip(single.clip_ids.tolist(), single.labels.tolist(), strict=True):
            if clip_id in known:
                seen[label] += 1
                hits[label] += known[clip_id] == label
        told[record.index] = [hits[c] / seen[c] if seen[c] else None for c in range(len(experiment.emotions))]
    return told


def _splits(corpus: Corpus) -> list[str]:
    return [clip.split.value for clip in corpus.clips]
