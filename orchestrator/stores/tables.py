"""Predictions and pseudo-labels as plain Parquet columns, there and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.stores.artifacts import write_durably
from orchestrator.stores.features import matrix, matrix_column
from orchestrator.vocabulary import Emotions, Predictions, PseudoLabels


def write_predictions(path: Path, predictions: Predictions) -> None:
    """One row a clip; teacher, calibration and voices travel in the schema's metadata."""
    columns = {"clip_id": pa.array(predictions.clip_ids.tolist(), pa.string()), "logits": matrix_column(predictions.logits)}
    if predictions.votes is not None:
        columns["votes"] = matrix_column(predictions.votes)
    if predictions.uncertainty is not None:
        columns["uncertainty"] = pa.array(predictions.uncertainty)
    about = {
        "teacher": predictions.teacher,
        "scale": predictions.scale.tolist(),
        "bias": predictions.bias.tolist(),
        "voices": list(predictions.voices),
    }
    _write(path, columns, about)


def read_predictions(path: Path) -> Predictions:
    """What `write_predictions` wrote."""
    table, about = _read(path)
    names = table.column_names
    return Predictions(
        clip_ids=_names(table),
        logits=matrix(table, "logits"),
        teacher=str(about["teacher"]),
        scale=np.array(about["scale"], np.float32),
        bias=np.array(about["bias"], np.float32),
        votes=matrix(table, "votes") if "votes" in names else None,
        voices=tuple(about["voices"]),
        uncertainty=table["uncertainty"].to_numpy() if "uncertainty" in names else None,
    )


def write_answers(path: Path, predictions: Predictions, splits: Sequence[str], emotions: Emotions) -> None:
    """What a user wants of predictions, as `path`.csv and `path`.parquet: label, confidence and a column a class."""
    probabilities = predictions.probabilities  # (N, C)
    labels = probabilities.argmax(axis=1)
    columns = {
        "clip_id": pa.array(predictions.clip_ids.tolist(), pa.string()),
        "split": pa.array(list(splits), pa.string()),
        "label": pa.array([emotions.names[label] for label in labels], pa.string()),
        "confidence": pa.array(probabilities.max(axis=1).astype(np.float32)),
    } | {name: pa.array(probabilities[:, i].astype(np.float32)) for i, name in enumerate(emotions.names)}
    for suffix, write in ((".parquet", pq.write_table), (".csv", pacsv.write_csv)):
        sink = pa.BufferOutputStream()
        write(pa.table(columns), sink)
        write_durably(path.with_suffix(suffix), sink.getvalue().to_pybytes())


def write_pseudo_labels(path: Path, labels: PseudoLabels) -> None:
    """One row a (clip, fold), sorted."""
    columns = {
        "clip_id": pa.array(labels.clip_ids.tolist(), pa.string()),
        "targets": matrix_column(labels.targets),
        "weight": pa.array(labels.weights),
        "confidence": pa.array(labels.confidence),
    }
    if labels.folds is not None:
        columns["fold"] = pa.array(labels.folds)
    about = {"teacher": labels.teacher, "round": labels.round_index, "thresholds": labels.thresholds.tolist()}
    about |= {} if labels.shift is None else {"shift": labels.shift.tolist()}
    _write(path, columns, about)


def read_pseudo_labels(path: Path) -> PseudoLabels:
    """What `write_pseudo_labels` wrote."""
    table, about = _read(path)
    return PseudoLabels(
        clip_ids=_names(table),
        targets=matrix(table, "targets"),
        weights=table["weight"].to_numpy(),
        confidence=table["confidence"].to_numpy(),
        thresholds=np.array(about["thresholds"], np.float32),
        teacher=str(about["teacher"]),
        round_index=int(about["round"]),
        folds=table["fold"].to_numpy() if "fold" in table.column_names else None,
        shift=np.array(about["shift"], np.float32) if "shift" in about else None,
    )


def _write(path: Path, columns: dict[str, pa.Array], about: dict[str, Any]) -> None:
    table = pa.table(columns).replace_schema_metadata({"about": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def _read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    table = pq.read_table(path, page_checksum_verification=True)
    return table, json.loads(table.schema.metadata[b"about"])


def _names(table: pa.Table) -> NDArray[np.str_]:
    return np.array(table["clip_id"].to_pylist(), dtype=np.str_)
