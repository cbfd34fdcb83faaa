"""Tables for a terminal, and for a job's log, where they are wide enough not to be cut."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orchestrator.vocabulary import Emotions, Rejected, RoundRecord

_LOG_WIDTH = 160


def show_round(record: RoundRecord, emotions: Emotions) -> None:
    """One line as soon as a round is finished."""
    counts = zip(emotions.names, record.accepted_per_class, strict=True)
    accepted = ", ".join(f"{count} {name}" for name, count in counts if count)
    learnt = f"{sum(record.accepted_per_class)} pseudo-labels ({accepted})" if accepted else "human labels"
    print(
        f"round {record.index}: WAF {record.val_f1:.3f} out of fold, {record.verdict} after {record.seconds:.0f} s on {learnt}; "
        f"{record.reason}",
        flush=True,
    )


def show_rounds(records: Sequence[RoundRecord]) -> None:
    """The rounds of a run."""
    columns = ("round", "WAF", "UAR", "accuracy", "ECE", "pseudo-labels", "of them true", "verdict")
    rows = []
    for r in records:
        true = "" if r.pool_precision is None else f"{r.pool_precision:.3f}"
        scores = [f"{value:.3f}" for value in (r.val_f1, r.val_uar, r.val_accuracy, r.val_ece)]
        rows.append((str(r.index), *scores, str(sum(r.accepted_per_class)), true, str(r.verdict)))
    show_rows("rounds, judged on out-of-fold human labels", columns, rows)


def show_scores(title: str, by_model: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Scores by model and modality subset."""
    rows = [
        (model, subset, *(f"{told[key]:.3f}" for key in ("waf", "uar", "accuracy")))
        for model, subsets in by_model.items()
        for subset, told in subsets.items()
    ]
    show_rows(title, ("model", "modalities", "WAF", "UAR", "accuracy"), rows)


def show_rejected(rejected: Sequence[Rejected], title: str = "clips that cannot be used") -> None:
    """Unusable clips by code, with one example each; nothing when there are none."""
    first = {row.code: row for row in reversed(rejected)}
    counts = Counter(row.code for row in rejected).most_common()
    rows = [(code, str(count), first[code].clip_id, first[code].detail) for code, count in counts]
    if rows:
        show_rows(title, ("code", "clips", "for example", "why"), rows)


def show_answers(path: Path, count: int = 20) -> None:
    """The first rows of a CSV of answers, as they stand there."""
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = islice(csv.reader(file), count + 1)
    shown = [tuple(f"{float(cell):.3f}" if "." in cell and _is_number(cell) else cell for cell in row) for row in rows]
    show_rows(path.name, columns, shown)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Any table. Text of users is shown as it is: brackets in it are no markup."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    table = Table(title=title)
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[number]) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _is_number(cell: str) -> bool:
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True
