"""Why a clip got its pseudo-label or did not, from a run's directory alone: no Ray, no torch, a few row groups of Parquet.

<run>/rounds/*/decisions.parquet, record.json ─► one row a round: said by whom, by which votes, against what, with what end
<run>/attention.json                          ─► clips worth a human label, human labels that look wrong
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.errors import InputError
from orchestrator.reports.console import show_rows
from orchestrator.stores.ledger import DECISIONS, Decision, find_decision, near_ids
from orchestrator.stores.runs import ATTENTION, read_about


def explain_clip(run: Path, clip_id: str, names: Sequence[str]) -> None:
    """Print what every round decided about a clip. Raises InputError for one the run does not know, with ids that look alike."""
    rounds = finished_rounds(run)
    found = [(decision, about) for path, about in rounds if (decision := _decision(path, clip_id)) is not None]
    if found:
        _show_decisions(run, clip_id, found, names)
        _show_answer(run, clip_id, names)
        return
    attention = read_about(run, ATTENTION)
    if clip_id in attention["human labels"]:
        _show_human(run, clip_id, attention["human labels"][clip_id], names)
    elif clip_id in attention["rejected"]:
        print(f"{clip_id} was never learnt from: it cannot be used. {attention['rejected'][clip_id]}")
    elif not _show_answer(run, clip_id, names):
        raise InputError(_unknown(run, clip_id, [*attention["human labels"], *attention["rejected"]]))


def show_attention(run: Path, count: int = 20) -> None:
    """Print the clips whose human label would be worth most, and the human labels that look wrong."""
    attention = read_about(run, ATTENTION)
    worth = [
        (row["clip_id"], *(f"{row[key]:.2f}" for key in ("worth", "doubt", "disagreement", "novelty")))
        for row in attention["worth"][:count]
    ]
    columns = ("clip", "worth", "doubt", "disagreement", "novelty")
    show_rows("clips whose human label would be worth most", columns, worth)
    wrong = [(row["clip_id"], row["given"], row["suggested"], f"{row['margin']:.2f}") for row in attention["suspects"][:count]]
    show_rows("human labels that look wrong", ("clip", "given", "rather", "likelier by"), wrong)
    print("Why a single clip got its label: add clip=ID")


def finished_rounds(run: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Directory and record of every finished round, in order."""
    found = sorted((run / "rounds").glob("[0-9]*/record.json"))
    return [(path.parent, json.loads(path.read_text())["round"]) for path in found]


def _decision(directory: Path, clip_id: str) -> Decision | None:
    path = directory / DECISIONS
    return find_decision(path, clip_id) if path.is_file() else None


def _show_decisions(run: Path, clip_id: str, found: Sequence[tuple[Decision, Mapping[str, Any]]], names: Sequence[str]) -> None:
    folds = len(list((run / "rounds" / "00").glob("pool-*.parquet")))
    makers = {about["student"]: f"round {about['index']}" for _, about in reversed(finished_rounds(run))}
    voices = list(dict.fromkeys(voice for decision, _ in found for voice in decision.votes))
    rows = [
        (
            str(said.round_index),
            makers.get(said.teacher, said.teacher),
            names[said.label],
            f"{said.confidence:.3f}",
            "closed" if said.threshold > 1 else f"{said.threshold:.3f}",
            *("-" if (vote := said.votes.get(voice, -1)) < 0 else names[vote] for voice in voices),
            f"{said.reason}, {said.accepted_by} of {folds} students" if said.accepted_by else said.reason,
            about["verdict"],
        )
        for said, about in found
    ]
    columns = (
        "round",
        "taught by",
        "label",
        "confidence",
        "to reach",
        *(f"vote {voice}" for voice in voices),
        "decision",
        "the round",
    )
    show_rows(f"{clip_id} in the rounds of {run.name}", columns, rows)
    print(_next_step(found[-1][0], str(found[-1][1]["verdict"])))


def _next_step(last: Decision, verdict: str) -> str:
    if verdict == "rejected":
        return (
            f"Round {last.round_index} was rejected: its students are rolled back, and what they learnt of this clip with them."
        )
    if last.accepted_by:
        return f"Round {last.round_index}'s students learnt it as shown; a later round asks its own teacher again."
    return f"It stays unlabelled after round {last.round_index}; a later round offers it again."


def _show_human(run: Path, clip_id: str, given: str, names: Sequence[str]) -> None:
    rows = []
    for directory, about in finished_rounds(run):
        table = pq.read_table(directory / "labelled.parquet", filters=pc.field("clip_id") == clip_id)
        said = names[max(range(len(names)), key=table["logits"][0].as_py().__getitem__)]
        rows.append((str(about["index"]), given, said, "agrees" if said == given else "disagrees", about["verdict"]))
    show_rows(f"{clip_id}: a human labelled it", ("round", "human", "model, out of fold", "", "the round"), rows)


def _show_answer(run: Path, clip_id: str, names: Sequence[str]) -> bool:
    """The champion's answer, once the run has finished; whether it has one."""
    path = run / "predictions.parquet"
    rows = pq.read_table(path, filters=pc.field("clip_id") == clip_id).to_pylist() if path.is_file() else []
    for row in rows:
        likely = ", ".join(f"{name} {row[name]:.2f}" for name in sorted(names, key=lambda name: -row[name]))
        print(f"The champion says of this {row['split']} clip: {likely}")
    return bool(rows)


def _unknown(run: Path, clip_id: str, others: Sequence[str]) -> str:
    from difflib import get_close_matches

    decided = sorted((run / "rounds").glob(f"*/{DECISIONS}"))
    near = (near_ids(decided[-1], clip_id) if decided else []) or get_close_matches(clip_id, others, n=5, cutoff=0.5)
    told = f"; did you mean {', '.join(near)}?" if near else "; clip ids are those of the manifest"
    return f"{run.name} knows no clip {clip_id!r}{told}"
