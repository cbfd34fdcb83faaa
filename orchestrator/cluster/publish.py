"""A run in public: every round is told as it is finished, and at the end the best model scores the test split, once.

    each record ─► report.html, attention.json, MLflow (the next round is being fitted meanwhile)
    the end     ─► champion ─► test door ─► predictions.parquet/.csv, report.html, summary.json ─► MLflow

Written below the run's directory; doing it again writes the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from orchestrator import metrics
from orchestrator.cluster.champion import USUAL, write_usual
from orchestrator.cluster.corpus import Corpus
from orchestrator.cluster.leak import prompt_tables
from orchestrator.cluster.report import OnTest, RunStory
from orchestrator.cluster.run import Run, load_student
from orchestrator.cluster.steps import KIND, predict, subset_labels
from orchestrator.cluster.telling import announced, tell_end, tell_round, write_confusion
from orchestrator.encoders.emovclip import TunedClip
from orchestrator.reports.console import show_round, show_rounds, show_scores
from orchestrator.rounds.self_training import best_of
from orchestrator.settings import Experiment
from orchestrator.stores.runs import SETTINGS, SUMMARY, write_about
from orchestrator.stores.tables import write_answers
from orchestrator.vocabulary import Predictions, RoundRecord, Split


def in_public(
    experiment: Experiment, corpus: Corpus, run: Run, rounds: Iterable[RoundRecord], settings: Mapping[str, Any]
) -> None:
    """Walk the rounds of a run and tell everybody: the console, the run's directory, MLflow."""
    write_about(run.directory, SETTINGS, settings)
    story = RunStory(experiment, corpus, run, settings)
    records: list[RoundRecord] = []
    with announced(experiment, run, settings) as tracker:
        for record in rounds:
            records.append(record)
            show_round(record, experiment.emotions)
            tell_round(tracker, run, record)
            story.write(records)
        best = best_of(records)
        test = score_test(experiment, corpus, {"supervised": records[0].student, "final": best.student})
        story.write(records, test, prompt_tables(experiment, corpus))
        answers = answer_all(experiment, corpus, run, best)
        write_answers(run.directory / "predictions", answers, [clip.split.value for clip in corpus.clips], experiment.emotions)
        if corpus.usual is not None:
            write_usual(run.directory / USUAL, corpus.usual)
        out_of_fold, scores = story.out_of_fold(records), test.scores if test else {}
        write_about(
            run.directory, SUMMARY, _summary(run, corpus, records, answers) | {"out_of_fold": out_of_fold, "test": scores}
        )
        names = experiment.emotions.names
        files = [run.directory / name for name in ("report.html", SUMMARY, "predictions.csv")]
        files.append(write_confusion(run.directory / "confusion.csv", story.confusion(records), names))
        if test:
            files.append(write_confusion(run.directory / "confusion-test.csv", test.confusion, names))
        champion = experiment.store / KIND / best.student
        tell_end(tracker, experiment, run, out_of_fold=out_of_fold, test=scores, champion=champion, files=files)
    show_rounds(records)
    show_scores("test split, unseen until now" if test else "out of fold (no test clip has a label)", scores or out_of_fold)
    print(f"report       {run.directory / 'report.html'}")
    print(f"predictions  {run.directory / 'predictions.csv'} and .parquet")
    print(f"MLflow       mlflow ui --backend-store-uri {tracker.uri}")


def score_test(experiment: Experiment, corpus: Corpus, students: Mapping[str, str]) -> OnTest | None:
    """The one door to the test split's labels: students by name, each by modality subset. None when no test clip has a label."""
    index = corpus.indices(Split.TEST)
    truth = np.array([-1 if (label := corpus.clips[i].label) is None else label for i in index], dtype=np.int64)
    known = truth >= 0
    if not known.any():
        return None
    features, truth = corpus.features.rows(index[known]), truth[known]
    unseen = np.full(len(features), -1)
    said = {name: subset_labels(load_student(experiment.store, student), features, unseen) for name, student in students.items()}
    scores = {name: {s: dict(metrics.scores(truth, labels)) for s, labels in by.items()} for name, by in said.items()}
    last = list(list(said.values())[-1].values())[-1]
    return OnTest(scores, metrics.confusion(truth, last, len(experiment.emotions)))


def answer_all(experiment: Experiment, corpus: Corpus, run: Run, best: RoundRecord) -> Predictions:
    """The champion on every clip of the corpus: out of fold for labelled ones, calibrated as in its round."""
    folds = np.full(len(corpus.clips), -1)
    folds[corpus.indices(Split.LABELLED)] = corpus.folds
    told = predict(load_student(experiment.store, best.student), corpus.features, folds, best.student)
    calibration = run.ledger.scored(best.index).labelled
    return replace(told, scale=calibration.scale, bias=calibration.bias)


def _summary(run: Run, corpus: Corpus, records: Sequence[RoundRecord], answers: Predictions) -> dict[str, Any]:
    """All that `jobs.predict` and `jobs.compare` need of a finished run."""
    tuned = [recipe.checkpoint for recipe in corpus.recipes if isinstance(recipe, TunedClip)]
    return {
        "name": run.name,
        "champion": answers.teacher,
        "calibration": {"scale": answers.scale.tolist(), "bias": answers.bias.tolist()},
        "streams": corpus.fingerprints,
        "tuned": tuned[0] if tuned else None,
        "rounds": [asdict(record) for record in records],
    }
