"""What became of every pool clip in a round, on disk: one Parquet table a round, and one clip out of a million at once.

Rows are sorted by clip id and cut into small row groups, so that a look-up reads the footer and one group: the smallest and the
largest id of each group tell which one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.vocabulary import Names, Predictions

DECISIONS = "decisions.parquet"
_GROUP = 8192  # rows a look-up reads


class Decisions(Protocol):
    """Columns `(N,)` of a round, in the order of `clip_ids`: `rounds.decisions` makes them."""

    @property
    def teacher(self) -> str: ...
    @property
    def clip_ids(self) -> Names: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def confidence(self) -> NDArray[np.float32]: ...
    @property
    def thresholds(self) -> NDArray[np.float32]: ...
    @property
    def accepted_by(self) -> NDArray[np.int16]: ...
    @property
    def reasons(self) -> Names: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a round decided about one clip.

    - `label`, `confidence`: the teacher's best class and its calibrated probability; `threshold`: what that class had to reach.
    - `accepted_by`: how many folds' students learn the clip, 0 for none; `reason`: accepted, or why not.
    - `votes`: the class each voice of the teacher names, -1 for one that could not speak.
    """

    clip_id: str
    round_index: int
    teacher: str
    label: int
    confidence: float
    threshold: float
    accepted_by: int
    reason: str
    votes: Mapping[str, int]


def write_decisions(path: Path, decided: Decisions, ensemble: Predictions, round_index: int) -> None:
    """One row a pool clip, sorted. `ensemble` is the model that taught the round: its votes are kept beside the decision."""
    order = np.argsort(decided.clip_ids, kind="stable")
    ids = decided.clip_ids[order]
    columns = {
        "clip_id": pa.array(ids.tolist(), pa.string()),
        "label": pa.array(decided.labels[order].astype(np.int16)),
        "confidence": pa.array(decided.confidence[order].astype(np.float32)),
        "threshold": pa.array(decided.thresholds[order].astype(np.float32)),
        "accepted_by": pa.array(decided.accepted_by[order].astype(np.int16)),
        "reason": pa.array(decided.reasons[order].tolist(), pa.string()),
    }
    if ensemble.votes is not None:
        by_id = np.argsort(ensemble.clip_ids, kind="stable")
        votes = ensemble.votes[by_id[np.searchsorted(ensemble.clip_ids, ids, sorter=by_id)]]  # (N, J)
        columns |= {f"vote {voice}": pa.array(votes[:, j]) for j, voice in enumerate(ensemble.voices)}
    table = pa.table(columns).replace_schema_metadata({"round": str(round_index), "teacher": decided.teacher})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=_GROUP, write_page_checksum=True)


def find_decision(path: Path, clip_id: str) -> Decision | None:
    """The row of one clip, None when the round did not see it."""
    file = pq.ParquetFile(path, page_checksum_verification=True)
    for group in range(file.metadata.num_row_groups):
        bounds = file.metadata.row_group(group).column(0).statistics
        if bounds is None or not bounds.has_min_max or bounds.min <= clip_id <= bounds.max:
            table = file.read_row_group(group)
            rows = table.filter(pc.equal(table["clip_id"], clip_id)).to_pylist()
            if rows:
                return _decision(rows[0], {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()})
    return None


def count_reasons(path: Path) -> dict[str, int]:
    """How many clips a round took or left for each reason."""
    counts = pc.value_counts(pq.read_table(path, columns=["reason"])["reason"].combine_chunks())
    return {row["values"]: row["counts"] for row in counts.to_pylist()}


def near_ids(path: Path, clip_id: str, count: int = 5) -> list[str]:
    """Ids of a round's clips that look like the given one, most alike first."""
    ids = pq.read_table(path, columns=["clip_id"])["clip_id"]
    core = max(re.findall(r"\d+|[^\W\d]+", clip_id), key=len, default=clip_id)  # its number, or its longest word
    names = ids.filter(pc.match_substring(ids, core, ignore_case=True)).slice(0, 500).to_pylist()
    place = int(pc.sum(pc.less(ids, clip_id)).as_py() or 0)  # the rows are sorted: neighbours share a beginning
    around = ids.slice(max(0, place - 500), 1000).to_pylist()
    return get_close_matches(clip_id, [*names, *around], n=count, cutoff=0.5)


def _decision(row: dict[str, str | int | float], about: Mapping[str, str]) -> Decision:
    votes = {name.removeprefix("vote "): int(vote) for name, vote in row.items() if name.startswith("vote ")}
    return Decision(
        clip_id=str(row["clip_id"]),
        round_index=int(about["round"]),
        teacher=about["teacher"],
        label=int(row["label"]),
        confidence=float(row["confidence"]),
        threshold=float(row["threshold"]),
        accepted_by=int(row["accepted_by"]),
        reason=str(row["reason"]),
        votes=votes,
    )
