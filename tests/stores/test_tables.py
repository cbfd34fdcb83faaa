"""Predictions, pseudo-labels and decisions come back from Parquet as they went in."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from orchestrator.stores.ledger import Decision, find_decision, write_decisions
from orchestrator.stores.tables import (
    read_predictions,
    read_pseudo_labels,
    write_answers,
    write_predictions,
    write_pseudo_labels,
)
from orchestrator.vocabulary import Emotions, Names, Predictions, PseudoLabels

EMOTIONS = Emotions(("happy", "sad", 'a,"b"\n<i>'))


def said(count: int, *, full: bool = True, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    names = np.array([f"clip {i:07d} é" for i in range(count)])
    return Predictions(
        clip_ids=names,
        logits=rng.standard_normal((count, 3)).astype(np.float32),
        teacher="t0",
        scale=np.array([0.5, 1, 2], np.float32) if full else np.ones(1, np.float32),
        bias=np.array([0.1, 0, -0.1], np.float32) if full else np.zeros(1, np.float32),
        votes=rng.integers(-1, 3, (count, 2)).astype(np.int8) if full else None,
        voices=("A", "fold 0") if full else (),
        uncertainty=rng.random(count, dtype=np.float32) if full else None,
    )


def same(one: object, other: object) -> None:
    assert type(one) is type(other)
    for field in one.__dataclass_fields__:  # type: ignore[attr-defined]
        left, right = getattr(one, field), getattr(other, field)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("full", [True, False])
def test_predictions_come_back(tmp_path: Path, count: int, full: bool) -> None:
    predictions = said(count, full=full)
    write_predictions(tmp_path / "p.parquet", predictions)
    back = read_predictions(tmp_path / "p.parquet")
    if count:
        same(back, predictions)
        np.testing.assert_array_equal(back.probabilities, predictions.probabilities)
    assert len(back) == count


@pytest.mark.parametrize("folds", [None, np.array([0, 1], np.int16)])
def test_pseudo_labels_come_back(tmp_path: Path, folds: NDArray[np.int16] | None) -> None:
    labels = PseudoLabels(
        clip_ids=np.array(["a", "a"]),
        targets=np.array([[1, 0, 0], [0.25, 0.5, 0.25]], np.float32),
        weights=np.array([1, 0.5], np.float32),
        confidence=np.array([0.9, 0.5], np.float32),
        thresholds=np.array([0.8, 0.4, 2.0], np.float32),
        teacher="t0",
        round_index=3,
        folds=folds,
    )
    write_pseudo_labels(tmp_path / "l.parquet", labels)
    same(read_pseudo_labels(tmp_path / "l.parquet"), labels)


def test_the_same_predictions_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_predictions(tmp_path / name, said(20))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_answers_say_label_confidence_and_every_probability(tmp_path: Path) -> None:
    predictions = said(5)
    write_answers(tmp_path / "answers", predictions, ["test"] * 5, EMOTIONS)
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    probabilities = predictions.probabilities
    assert [row["clip_id"] for row in rows] == predictions.clip_ids.tolist()
    assert [row["label"] for row in rows] == [EMOTIONS.names[label] for label in probabilities.argmax(axis=1)]
    told = np.array([[float(row[name]) for name in EMOTIONS.names] for row in rows])
    np.testing.assert_allclose(told, probabilities, atol=1e-6)
    table = pq.read_table(tmp_path / "answers.parquet")
    np.testing.assert_allclose(table["confidence"].to_numpy(), probabilities.max(axis=1), atol=1e-6)


@dataclass(frozen=True)
class Decided:
    teacher: str
    clip_ids: Names
    labels: NDArray[np.int64]
    confidence: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    accepted_by: NDArray[np.int16]
    reasons: Names


def decided(teacher: Predictions) -> Decided:
    count = len(teacher)
    return Decided(
        teacher=teacher.teacher,
        clip_ids=teacher.clip_ids,
        labels=teacher.probabilities.argmax(axis=1),
        confidence=teacher.probabilities.max(axis=1).astype(np.float32),
        thresholds=np.linspace(0, 1, count, dtype=np.float32),
        accepted_by=(np.arange(count) % 4).astype(np.int16),
        reasons=np.where(np.arange(count) % 4, "accepted", "below threshold"),
    )


def test_a_decision_is_found_by_its_clip(tmp_path: Path) -> None:
    teacher = said(20_000)
    write_decisions(tmp_path / "d.parquet", decided(teacher), teacher, 2)
    assert pq.ParquetFile(tmp_path / "d.parquet").metadata.num_row_groups == 3
    for index in (0, 8191, 8192, 12_345, 19_999):
        expected = decided(teacher)
        assert teacher.votes is not None
        assert find_decision(tmp_path / "d.parquet", f"clip {index:07d} é") == Decision(
            clip_id=f"clip {index:07d} é",
            round_index=2,
            teacher="t0",
            label=int(expected.labels[index]),
            confidence=float(expected.confidence[index]),
            threshold=float(expected.thresholds[index]),
            accepted_by=index % 4,
            reason="accepted" if index % 4 else "below threshold",
            votes={"A": int(teacher.votes[index, 0]), "fold 0": int(teacher.votes[index, 1])},
        )
    for absent in ("", "clip", "zzz", "clip 0000001 e"):
        assert find_decision(tmp_path / "d.parquet", absent) is None


def test_votes_follow_their_clip_whatever_the_order(tmp_path: Path) -> None:
    teacher = said(50)
    order = np.random.default_rng(1).permutation(50)
    write_decisions(tmp_path / "a", decided(teacher), teacher, 0)
    write_decisions(tmp_path / "b", decided(teacher), teacher.rows(order), 0)
    assert pq.read_table(tmp_path / "a").equals(pq.read_table(tmp_path / "b"))
