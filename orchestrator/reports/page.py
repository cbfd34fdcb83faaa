"""The report of a run: one self-contained HTML file, readable without network, script or this project.

ReportData (plain arrays, every section optional)  ──►  render  ──►  report.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.reports import html, svg
from orchestrator.vocabulary import Emotions, Floats, Ints, Rejected, RoundRecord, Verdict

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]  # model -> modality subset -> waf, uar, accuracy
KEYS = {"waf": "WAF", "uar": "UAR", "accuracy": "accuracy"}
ERRORS = {"ece_raw": "ECE before calibration", "ece": "after"}


@dataclass(frozen=True, slots=True)
class Table:
    """Any further table of a report."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the report tells; a section without data is left out.

    - `fingerprint`: of the run; `settings`: its configuration, flat. `counts`: clips by split. `notes`: how to read the scores.
    - `records`: the rounds. `precision_by_class` by round: share of accepted labels that are true, None where unknown.
    - `confusion`, `test_confusion` `(C, C)`: final model, out of fold and on the test split.
    - `reliability`: tables of `metrics.reliability` by name, say "raw" and "calibrated".
    - `out_of_fold`, `test`: scores by model and modality subset, the largest subset last.
    - `doubtful`: clips whose human label would be worth most, `suspect`: human labels that look wrong; rows of (clip, reason).
    """

    title: str
    emotions: Emotions
    counts: Mapping[str, int] = field(default_factory=dict)
    records: Sequence[RoundRecord] = ()
    confusion: Ints | None = None
    reliability: Mapping[str, Floats] = field(default_factory=dict)
    out_of_fold: Scores | None = None
    test: Scores | None = None
    test_confusion: Ints | None = None
    precision_by_class: Mapping[int, Sequence[float | None]] | None = None
    rejected: Sequence[Rejected] = ()
    doubtful: Sequence[tuple[str, str]] = ()
    suspect: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    fingerprint: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    tables: Sequence[Table] = ()


def write_report(path: Path, data: ReportData) -> None:
    """Write the page, whole or not at all."""
    html.write_page(path, render(data))


def render(data: ReportData) -> str:
    """The page as text; everything that came from a user is escaped."""
    names = data.emotions.names
    parts = [
        html.paragraph(f"run {data.fingerprint}" if data.fingerprint else "", dim=True),
        html.tiles(_figures(data)),
        *(html.paragraph(note, dim=True) for note in data.notes),
        _rounds(data.records),
        _pseudo_labels(data),
        html.section(
            "Modalities",
            html.pair(_subsets("on the test split", data.test), _subsets("out of fold", data.out_of_fold)),
            note="A audio, V video, T text: what the model says when the others are missing, and what losing one of them costs.",
        ),
        html.section(
            "Confusion of the final model",
            html.pair(
                _confusion("on the test split", data.test_confusion, names), _confusion("out of fold", data.confusion, names)
            ),
        ),
        html.section(
            "Reliability of the final model, out of fold", svg.reliability(data.reliability) if data.reliability else ""
        ),
        *(html.section(extra.title, html.table(extra.columns, extra.rows), note=extra.note) for extra in data.tables),
        html.section("Clips whose human label would be worth most", html.table(("clip", "why"), data.doubtful)),
        html.section("Human labels that look wrong", html.table(("clip", "why"), data.suspect)),
        _rejected(data.rejected),
        html.section("Settings", _settings(data.settings)),
    ]
    return html.page(data.title, parts)


def best_round(records: Sequence[RoundRecord]) -> RoundRecord:
    """The last promoted round, whose model a run hands out."""
    return [record for record in records if record.verdict is Verdict.PROMOTED][-1]


def _figures(data: ReportData) -> dict[str, str]:
    told = {f"{name} clips": str(count) for name, count in data.counts.items()}
    if data.records:
        first, best = data.records[0], best_round(data.records)
        told["WAF out of fold, supervised"] = f"{first.val_f1:.3f}"
        told[f"WAF out of fold, final (round {best.index})"] = f"{best.val_f1:.3f}"
    for model, by_subset in (data.test or {}).items():
        told[f"WAF on the test split, {model}"] = f"{list(by_subset.values())[-1]['waf']:.3f}"
    return told


def _rounds(records: Sequence[RoundRecord]) -> str:
    if not records:
        return ""
    scores = {"WAF": [record.val_f1 for record in records], "UAR": [record.val_uar for record in records]}
    hollow = [record.verdict is Verdict.REJECTED for record in records]
    picture = svg.lines(scores, [f"round {record.index}" for record in records], hollow=hollow)
    columns = ("round", "WAF", "UAR", "accuracy", "ECE", "pseudo-labels", "of them true", "verdict", "why", "seconds")
    rows = [
        (
            str(record.index),
            *(f"{value:.3f}" for value in (record.val_f1, record.val_uar, record.val_accuracy, record.val_ece)),
            str(sum(record.accepted_per_class)),
            "" if record.pool_precision is None else f"{record.pool_precision:.3f}",
            record.verdict.value,
            record.reason,
            f"{record.seconds:.0f}",
        )
        for record in records
    ]
    note = "Judged on human labels by models that never saw them; a hollow point was rejected and rolled back."
    return html.section("Rounds", picture, html.table(columns, rows), note=note)


def _pseudo_labels(data: ReportData) -> str:
    taught = [record for record in data.records if sum(record.accepted_per_class)]
    if not taught:
        return ""
    names = data.emotions.names
    picture = svg.bars({f"round {r.index}": r.accepted_per_class for r in taught}, names, digits=0)
    known = data.precision_by_class or {}
    rows = [
        (f"round {record.index}", *(_accepted(record, label, known.get(record.index)) for label in range(len(names))))
        for record in taught
    ]
    note = "Clips accepted, of them true where the truth is known, and the confidence the class had to reach."
    return html.section("Pseudo-labels by class", picture, html.table(("", *names), rows), note=note)


def _accepted(record: RoundRecord, label: int, precision: Sequence[float | None] | None) -> str:
    true = None if precision is None else precision[label]
    reached = record.threshold_per_class[label] if record.threshold_per_class else None
    told = str(record.accepted_per_class[label])
    told += "" if true is None else f", {true:.0%} true"
    return told + ("" if reached is None else ", closed" if reached > 1 else f", from {reached:.2f}")


def _subsets(title: str, scores: Scores | None) -> str:
    if not scores:
        return ""
    subsets = list(next(iter(scores.values())))
    picture = svg.bars({model: [told[subset]["waf"] for subset in subsets] for model, told in scores.items()}, subsets)
    keys = KEYS | {
        key: name for key, name in ERRORS.items() if all(key in told for by in scores.values() for told in by.values())
    }
    rows = [
        (model, subset, *(f"{told[key]:.3f}" for key in keys), f"{told['waf'] - by_subset[subsets[-1]]['waf']:+.3f}")
        for model, by_subset in scores.items()
        for subset, told in by_subset.items()
    ]
    columns = ("model", "modalities", *keys.values(), f"WAF against {subsets[-1]}")
    return html.part(title, picture, _losses(scores, subsets), html.folded("all numbers", html.table(columns, rows)))


def _losses(scores: Scores, subsets: Sequence[str]) -> str:
    """What it costs to lose one modality; nothing for a model that has only one."""
    whole = subsets[-1]
    without = {f"without {(set(whole) - set(subset)).pop()}": subset for subset in subsets if len(subset) == len(whole) - 1}
    rows = [
        (model, f"{by[whole]['waf']:.3f}", *(f"{by[subset]['waf'] - by[whole]['waf']:+.3f}" for subset in without.values()))
        for model, by in scores.items()
    ]
    return html.table(("WAF", whole, *without), rows) if without else ""


def _confusion(title: str, counts: Ints | None, names: Sequence[str]) -> str:
    return "" if counts is None else html.part(title, svg.confusion(counts, names))


def _rejected(rejected: Sequence[Rejected]) -> str:
    codes = Counter((row.stage, row.code) for row in rejected).most_common()
    by_code = html.table(("stage", "code", "clips"), [(stage, code, str(count)) for (stage, code), count in codes])
    rows = [(row.clip_id, row.stage, row.code, row.detail) for row in rejected]
    each = html.folded("every clip", html.table(("clip", "stage", "code", "detail"), rows))
    return html.section("Clips that cannot be used", by_code, each if rows else "")


def _settings(settings: Mapping[str, object]) -> str:
    rows = [(key, str(value)) for key, value in sorted(settings.items())]
    return html.folded(f"{len(rows)} settings", html.table(("key", "value"), rows, shown=1000)) if rows else ""
