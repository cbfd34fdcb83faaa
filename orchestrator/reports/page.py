"""The report of a run: one self-contained HTML file, readable without network, script or this project.

ReportData (plain arrays, every section optional)  ──►  render  ──►  report.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from orchestrator.reports import svg
from orchestrator.vocabulary import Emotions, Floats, Ints, Rejected, RoundRecord

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]  # model -> modality subset -> waf, uar, accuracy

STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;margin:.5em 0}
td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #8884;font-variant-numeric:tabular-nums}
td.text,th.text{text-align:left}svg{max-width:560px;width:100%;font-size:11px}svg text{fill:currentColor}
.legend span{margin-right:1em}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
.confusion td{min-width:3em;text-align:center}.note{opacity:.75}code{font-size:.9em}
"""


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the report tells. `counts`: clips by split. `pool_precision_by_class` by round: share of accepted labels that are true.

    - `confusion` `(C, C)`: final model, out of fold. `reliability`: tables of `metrics.reliability` by name.
    - `out_of_fold`, `test`: scores by model and modality subset; `test` is None when no test clip has a label.
    - `doubtful`: clips whose human label would be worth most, `suspect`: human labels that look wrong; rows of (clip, reason).
    """

    title: str
    emotions: Emotions
    counts: Mapping[str, int]
    records: Sequence[RoundRecord]
    confusion: Ints
    reliability: Mapping[str, Floats]
    out_of_fold: Scores
    test: Scores | None = None
    precision_by_class: Mapping[int, Sequence[float | None]] | None = None
    rejected: Sequence[Rejected] = ()
    doubtful: Sequence[tuple[str, str]] = ()
    suspect: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def write_report(path: Path, data: ReportData) -> None:
    """Write the page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".tmp")
    staged.write_text(render(data), encoding="utf-8")
    staged.replace(path)


def render(data: ReportData) -> str:
    """The page as text; everything that came from a user is escaped."""
    counts = ", ".join(f"{count} {name}" for name, count in data.counts.items())
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in data.notes)
    sections = [
        f"<h1>{escape(data.title)}</h1><p>{escape(counts)}</p>{notes}",
        _rounds(data),
        _accepted(data),
        _section("Modalities, final model on the test split", _subsets(data.test)) if data.test else "",
        _section("Modalities, out of fold", _subsets(data.out_of_fold)),
        _section("Confusion, final model out of fold", svg.confusion(data.confusion, data.emotions.names)),
        _section("Reliability, final model out of fold", svg.reliability(data.reliability)),
        _table("Clips whose human label would be worth most", ("clip", "why"), data.doubtful),
        _table("Human labels that look wrong", ("clip", "why"), data.suspect),
        _table("Clips that cannot be used", ("clip", "stage", "code", "detail"), [_row(r) for r in data.rejected]),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(data.title)}</title>'
    return f"<!doctype html><html><head>{head}<style>{STYLE}</style></head><body>{''.join(sections)}</body></html>"


def _rounds(data: ReportData) -> str:
    scores = [r.val_f1 for r in data.records]
    low = max(0.0, min(scores) - 0.1)
    picture = svg.lines({"WAF": scores, "UAR": [r.val_uar for r in data.records]}, _names(data), low=low, high=1.0)
    rows = [
        (
            str(r.index),
            f"{r.val_f1:.3f}",
            f"{r.val_uar:.3f}",
            f"{r.val_accuracy:.3f}",
            f"{r.val_ece:.3f}",
            str(sum(r.accepted_per_class)),
            "" if r.pool_precision is None else f"{r.pool_precision:.3f}",
            r.verdict.value,
            r.reason,
        )
        for r in data.records
    ]
    columns = ("round", "WAF", "UAR", "accuracy", "ECE", "pseudo-labels", "of them true", "verdict", "why")
    return _section("Rounds, judged on out-of-fold human labels", picture) + _table("", columns, rows)


def _accepted(data: ReportData) -> str:
    taught = [r for r in data.records if sum(r.accepted_per_class)]
    if not taught:
        return ""
    highest = max(max(r.accepted_per_class) for r in taught)
    picture = svg.bars({f"round {r.index}": r.accepted_per_class for r in taught}, data.emotions.names, high=float(highest))
    rows = []
    for r in taught:
        known = (data.precision_by_class or {}).get(r.index)
        cells = [
            f"{count}" if known is None or known[i] is None else f"{count} ({known[i]:.0%} true)"
            for i, count in enumerate(r.accepted_per_class)
        ]
        rows.append((f"round {r.index}", *cells))
    return _section("Pseudo-labels by class", picture) + _table("", ("", *data.emotions.names), rows)


def _subsets(scores: Scores) -> str:
    subsets = list(next(iter(scores.values())))
    picture = svg.bars({model: [told[s]["waf"] for s in subsets] for model, told in scores.items()}, subsets, high=1.0)
    rows = [
        (
            model,
            subset,
            *(f"{told[key]:.3f}" for key in ("waf", "uar", "accuracy")),
            f"{told['waf'] - by[subsets[-1]]['waf']:+.3f}",
        )
        for model, by in scores.items()
        for subset, told in by.items()
    ]
    return picture + _table("", ("model", "modalities", "WAF", "UAR", "accuracy", f"against {subsets[-1]}"), rows)


def _names(data: ReportData) -> list[str]:
    return [f"round {r.index}" for r in data.records]


def _row(row: Rejected) -> tuple[str, str, str, str]:
    return row.clip_id, row.stage, row.code, row.detail


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inside}</section>"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th class="text">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f'<td class="text">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows)
    table = f"<table><tr>{head}</tr>{body}</table>"
    return _section(title, table) if title else table
