"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from orchestrator.vocabulary import Emotions, RoundRecord

_console = Console(soft_wrap=True)


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
    table = Table(title="rounds, judged on out-of-fold human labels")
    for name in ("round", "WAF", "UAR", "accuracy", "ECE", "pseudo-labels", "of them true", "verdict"):
        table.add_column(name, justify="right")
    for r in records:
        true = "" if r.pool_precision is None else f"{r.pool_precision:.3f}"
        scores = [f"{value:.3f}" for value in (r.val_f1, r.val_uar, r.val_accuracy, r.val_ece)]
        table.add_row(str(r.index), *scores, str(sum(r.accepted_per_class)), true, str(r.verdict))
    _console.print(table)


def show_scores(title: str, by_model: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Scores by model and modality subset."""
    table = Table(title=title)
    for name in ("model", "modalities", "WAF", "UAR", "accuracy"):
        table.add_column(name, justify="left" if name in ("model", "modalities") else "right")
    for model, subsets in by_model.items():
        for subset, told in subsets.items():
            table.add_row(model, subset, *(f"{told[key]:.3f}" for key in ("waf", "uar", "accuracy")))
    _console.print(table)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Any table."""
    table = Table(title=title)
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    _console.print(table)
