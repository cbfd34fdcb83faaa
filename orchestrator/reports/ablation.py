"""Tables of ablations: mean and spread over seeds, and what a row gains on the first one, seed by seed.

AblationTable of each factor  ──►  rows for a terminal, one HTML page
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from orchestrator.reports import html, svg

COLUMNS = (
    "row",
    "WAF out of fold",
    "against the first row",
    "better in",
    "WAF test",
    "against the first row",
    "lost with one modality",
    "handed out",
)
NOTE = (
    "The student of each row's last round: mean ± deviation over seeds; differences are taken seed by seed, on the same folds. "
    "Choose by the out-of-fold column; the test column is for reporting. Lost with one modality: the largest fall of test WAF "
    "(out of fold without a test split) when one is missing. Handed out: seeds in which a run ends with this student; in the "
    "others the guard did not find it proven better than an earlier one."
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One row with one seed: WAF by modality subset, the largest last; `test` None where no test clip has a label.

    `handed_out`: whether the guard let this student out.
    """

    out_of_fold: Mapping[str, float]
    test: Mapping[str, float] | None
    handed_out: bool = True

    @classmethod
    def read(cls, told: Mapping[str, Any], *, handed_out: bool) -> Cell:
        """From scores by subset as they are stored."""
        out_of_fold, test = (
            {subset: float(scores["waf"]) for subset, scores in (told[key] or {}).items()} for key in ("out_of_fold", "test")
        )
        return cls(out_of_fold, test or None, handed_out)

    @property
    def waf(self) -> float:
        return list(self.out_of_fold.values())[-1]

    @property
    def waf_test(self) -> float:
        return nan if self.test is None else list(self.test.values())[-1]

    @property
    def loss(self) -> float:
        """The largest fall when exactly one modality is missing; NaN for a model of one."""
        scores = self.test or self.out_of_fold
        whole = max(len(subset) for subset in scores)
        without_one = [score for subset, score in scores.items() if len(subset) == whole - 1]
        return list(scores.values())[-1] - min(without_one) if without_one else nan


@dataclass(frozen=True, slots=True)
class AblationTable:
    """One factor: cells by row in the order of the seeds, None where a trial failed; the first row is what others are held to."""

    title: str
    rows: Mapping[str, Sequence[Cell | None]]


def ablation_rows(table: AblationTable) -> list[tuple[str, ...]]:
    """A row of text each, under `COLUMNS`."""
    first = next(iter(table.rows.values()))
    told: list[tuple[str, ...]] = []
    for number, (name, cells) in enumerate(table.rows.items()):
        pairs = [(cell, base) for cell, base in zip(cells, first, strict=True) if cell is not None and base is not None]
        gains = [cell.waf - base.waf for cell, base in pairs]
        gains_test = [cell.waf_test - base.waf_test for cell, base in pairs]
        whole = [cell for cell in cells if cell is not None]
        told.append(
            (
                name if len(whole) == len(cells) else f"{name} ({len(cells) - len(whole)} failed)",
                _spread([cell.waf for cell in whole]),
                _spread(gains, sign="+") if number else "",
                f"{sum(gain > 0 for gain in gains)} of {len(gains)}" if number else "",
                _spread([cell.waf_test for cell in whole]),
                _spread(gains_test, sign="+") if number else "",
                _spread([cell.loss for cell in whole]),
                f"{sum(cell.handed_out for cell in whole)} of {len(whole)}",
            )
        )
    return told


def render_ablations(title: str, tables: Sequence[AblationTable]) -> str:
    """The page as text; everything that came from a user is escaped."""
    return html.page(title, [html.paragraph(NOTE, dim=True), *(_section(table) for table in tables)])


def _section(table: AblationTable) -> str:
    means = {
        "out of fold": [_mean([cell.waf for cell in cells if cell]) for cells in table.rows.values()],
        "test": [_mean([cell.waf_test for cell in cells if cell]) for cells in table.rows.values()],
    }
    shown = {name: values for name, values in means.items() if not all(np.isnan(values))}
    picture = svg.bars(shown, list(table.rows)) if shown else ""
    whole = [cell for cells in table.rows.values() for cell in cells if cell]
    subsets = list(dict.fromkeys(subset for cell in whole for subset in cell.out_of_fold))
    by_subset = [
        (name, *(_spread([cell.out_of_fold[s] for cell in cells if cell and s in cell.out_of_fold]) for s in subsets))
        for name, cells in table.rows.items()
    ]
    folded = html.folded("WAF out of fold when only these modalities are there", html.table(("row", *subsets), by_subset))
    return html.section(table.title, picture, html.table(COLUMNS, ablation_rows(table)), folded)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else nan


def _spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± sample deviation, "" when there is nothing to say."""
    if not values or np.isnan(values).any():
        return ""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):{sign}.3f} ± {deviation:.3f}"
