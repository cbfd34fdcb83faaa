"""What a run has to say about itself, worked out from its ledger: the page, and the clips a human should look at.

    records so far, ledger, corpus ─► scores out of fold, reliability, precision, doubts ─► report.html, attention.json

Written anew after every round; the test split's scores join it at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import metrics
from orchestrator.cluster.corpus import Corpus, pool_truth
from orchestrator.cluster.run import Run, load_student
from orchestrator.reports.page import ReportData, Scores, Table, write_report
from orchestrator.rounds.calibration import calibrated
from orchestrator.rounds.crossfit import combined
from orchestrator.rounds.decisions import Reason
from orchestrator.rounds.doubts import novelties, suspects, worth_labelling
from orchestrator.rounds.self_training import best_of
from orchestrator.settings import Experiment
from orchestrator.stores.runs import ATTENTION, flatten, write_about
from orchestrator.training.ensemble import subset_logits
from orchestrator.vocabulary import Floats, Ints, Predictions, RoundRecord, Split

NOTE = (
    "Out-of-fold scores: every labelled clip is judged by models that never saw its label, nor a pseudo-label given by one "
    "that did. The test split is scored once, after the last round."
)
_SHOWN = 20


@dataclass(frozen=True)
class OnTest:
    """What the test split's one opening gave: scores by model and modality subset, confusion `(C, C)` of the last one."""

    scores: Scores
    confusion: Ints


class RunStory:
    """Tells a run from its ledger; keeps what does not change from round to round."""

    def __init__(self, experiment: Experiment, corpus: Corpus, run: Run, settings: Mapping[str, Any]) -> None:
        self._experiment, self._corpus, self._run, self._settings = experiment, corpus, run, settings
        self._by_student: dict[str, dict[str, dict[str, float]]] = {}

    def write(self, records: Sequence[RoundRecord], test: OnTest | None = None, tables: Sequence[Table] = ()) -> None:
        """The page and the list of clips to look at, of the rounds so far; `tables` are further ones for the page."""
        experiment, corpus = self._experiment, self._corpus
        best = best_of(list(records))
        scored = self._run.ledger.scored(best.index)
        judged, pool, truth = scored.labelled, scored.ensemble, corpus.truth
        names = experiment.emotions.names
        worth = worth_labelling(pool, novelty=self._novelty, count=100) if len(pool) else ()
        wrong = suspects(judged, truth)[:100]
        write_report(
            self._run.directory / "report.html",
            ReportData(
                title=self._run.name,
                emotions=experiment.emotions,
                counts={split.value: len(corpus.indices(split)) for split in Split} | {"rejected": len(corpus.rejected)},
                records=records,
                confusion=metrics.confusion(truth, judged.logits.argmax(axis=1), len(names)),
                test_confusion=test.confusion if test else None,
                reliability={name: _reliability(said, truth) for name, said in _before_and_after(judged).items()},
                out_of_fold=self.out_of_fold(records),
                test=test.scores if test else None,
                precision_by_class=self._precision_by_class(records),
                rejected=corpus.rejected,
                doubtful=[
                    (w.clip_id, f"doubt {w.doubt:.2f}, disagreement {w.disagreement:.2f}, novelty {w.novelty:.2f}")
                    for w in worth[:_SHOWN]
                ],
                suspect=[
                    (s.clip_id, f"{names[s.given]}? rather {names[s.suggested]}, by {s.margin:.2f}") for s in wrong[:_SHOWN]
                ],
                notes=(NOTE,),
                settings={key: value for key, value in flatten(self._settings).items() if not key.startswith("job.")},
                tables=[*self._decisions(records), *self._external(pool), *tables],
            ),
        )
        attention = {
            "worth": [asdict(w) for w in worth],
            "suspects": [{**asdict(s), "given": names[s.given], "suggested": names[s.suggested]} for s in wrong],
            "human labels": dict(zip(judged.clip_ids.tolist(), [names[label] for label in truth], strict=True)),
            "rejected": {row.clip_id: f"{row.stage} {row.code}: {row.detail}" for row in corpus.rejected},
        }
        write_about(self._run.directory, ATTENTION, attention)

    def out_of_fold(self, records: Sequence[RoundRecord]) -> Scores:
        """Round 0 and the best model on human labels by modality subset, with the calibration error each subset has."""
        return {name: self.scores(record) for name, record in {"supervised": records[0], "final": best_of(records)}.items()}

    def confusion(self, records: Sequence[RoundRecord]) -> NDArray[np.int64]:
        """Of the best model, out of fold, `(C, C)`."""
        said = self._run.ledger.scored(best_of(records).index).labelled.logits.argmax(axis=1)
        return metrics.confusion(self._corpus.truth, said, len(self._experiment.emotions))

    def scores(self, record: RoundRecord) -> dict[str, dict[str, float]]:
        """Of one round's student, by modality subset."""
        if record.student not in self._by_student:
            ensemble, truth = load_student(self._experiment.store, record.student), self._corpus.truth
            told = subset_logits(ensemble, self._corpus.of(Split.LABELLED), self._corpus.folds)
            judged = self._run.ledger.scored(record.index).labelled
            self._by_student[record.student] = {
                subset: {
                    **metrics.scores(truth, logits.argmax(axis=1)),
                    "ece_raw": metrics.ece(replace(judged, logits=logits, **_RAW).probabilities, truth),
                    "ece": metrics.ece(replace(judged, logits=logits).probabilities, truth),
                }
                for subset, logits in told.items()
            }
        return self._by_student[record.student]

    @cached_property
    def _novelty(self) -> Floats:
        return novelties(self._corpus.of(Split.UNLABELLED), self._corpus.of(Split.LABELLED))

    @cached_property
    def _truth_of_pool(self) -> dict[str, int]:
        pool = [self._corpus.clips[i] for i in self._corpus.indices(Split.UNLABELLED)]
        truth = pool_truth(self._experiment, pool)
        known = [] if truth is None else zip(pool, truth.tolist(), strict=True)
        return {clip.clip_id: label for clip, label in known if label >= 0}

    def _precision_by_class(self, records: Sequence[RoundRecord]) -> dict[int, list[float | None]] | None:
        """Share of accepted labels that are true, by round and class, where the truth is known."""
        known = self._truth_of_pool
        if not known:
            return None
        told: dict[int, list[float | None]] = {}
        for record in records:
            labels = self._run.ledger.labels(record.index)
            if labels is None or not len(labels):
                continue
            single = combined(labels, 1)
            pairs = [
                (known[i], label) for i, label in zip(single.clip_ids.tolist(), single.labels.tolist(), strict=True) if i in known
            ]
            seen, hits = Counter(label for _, label in pairs), Counter(label for true, label in pairs if true == label)
            told[record.index] = [hits[c] / seen[c] if seen[c] else None for c in range(len(self._experiment.emotions))]
        return told

    def _decisions(self, records: Sequence[RoundRecord]) -> tuple[Table, ...]:
        """What became of the pool in each round."""
        counts = {r.index: self._run.ledger.reasons(r.index) for r in records if r.index}
        words = [reason for reason in Reason if any(reason in told for told in counts.values())]
        rows = [(f"round {index}", *(str(told.get(word, 0)) for word in words)) for index, told in counts.items()]
        note = "Why a single clip was taken or left: python -m jobs.explain with the settings of this run and clip=ID."
        return (Table("What became of the pool", ("", *words), rows, note=note),) if rows else ()

    def _external(self, pool: Predictions) -> tuple[Table, ...]:
        """How far the external teacher can be trusted: its answers against human labels and against the model."""
        said = self._corpus.external
        if said is None:
            return ()
        label = dict(zip(said.clip_ids.tolist(), said.logits.argmax(axis=1).tolist(), strict=True))
        humans = zip(
            (clip.clip_id for clip in self._corpus.clips if clip.split is Split.LABELLED), self._corpus.truth, strict=True
        )
        models = zip(pool.clip_ids.tolist(), pool.logits.argmax(axis=1), strict=True)
        rows = []
        for name, others in {"human labels": humans, "the final model, on the pool": models}.items():
            pairs = [(int(other), label.get(clip_id, -1)) for clip_id, other in others]
            answered = np.array([pair for pair in pairs if pair[1] >= 0], dtype=np.int64).reshape(-1, 2)
            scores = metrics.scores(answered[:, 0], answered[:, 1]).values() if len(answered) else (np.nan,) * 3
            rows.append((name, str(len(pairs)), str(len(answered)), *(f"{score:.3f}" for score in scores)))
        codes = Counter(row.code for row in self._corpus.unanswered)
        note = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        columns = ("against", "clips", "answered", "WAF", "UAR", "accuracy")
        note = f"Without a usable answer: {note}; they are left out." if note else ""
        return (Table(f"External teacher: {said.teacher}", columns, rows, note=note),)


_RAW: dict[str, Any] = {"scale": np.ones(1, np.float32), "bias": np.zeros(1, np.float32)}


def _before_and_after(judged: Predictions) -> dict[str, Predictions]:
    return {"calibrated": judged, "raw": calibrated(judged, **_RAW)}


def _reliability(predictions: Predictions, truth: NDArray[np.int64]) -> NDArray[np.float64]:
    probabilities = predictions.probabilities
    right = (probabilities.argmax(axis=1) == truth).astype(np.int64)
    return metrics.reliability(probabilities.max(axis=1), right)
