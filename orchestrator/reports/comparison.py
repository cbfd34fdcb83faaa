"""Several runs side by side: what differed between them, and what came of it.

RunSummary of each run  ──►  ranked, differing settings  ──►  table for a terminal, one HTML page
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

from orchestrator.reports import html, svg
from orchestrator.reports.page import KEYS, Scores

COLUMNS = ("run", "rounds", "WAF out of fold, supervised", "final", "gain", "WAF test, supervised", "final", "gain")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One finished run.

    - `waf_by_round`: out of fold, round 0 first. `settings`: its configuration, flat.
    - `out_of_fold`, `test`: scores by model ("supervised", "final") and modality subset, the largest subset last.
    """

    name: str
    waf_by_round: Sequence[float]
    out_of_fold: Scores
    test: Scores | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


def ranked(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Best first by out-of-fold WAF of the final model: the test split ranks nothing."""
    return sorted(runs, key=lambda run: (-whole(run.out_of_fold, "final", "waf"), run.name))


def comparison_rows(runs: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """A row a run, under `COLUMNS`, in the order given."""
    return [(run.name, str(len(run.waf_by_round) - 1), *_ends(run.out_of_fold), *_ends(run.test)) for run in runs]


def differing(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs, as text in the order of the runs; "" where a run lacks one."""
    keys = sorted({key for run in runs for key in run.settings})
    told = {key: [str(run.settings.get(key, "")) for run in runs] for key in keys}
    return {key: values for key, values in told.items() if len(set(values)) > 1}


def render_comparison(title: str, runs: Sequence[RunSummary]) -> str:
    """The page as text; everything that came from a user is escaped. Raises ValueError without any run."""
    if not runs:
        raise ValueError("nothing to compare: finish a run first")
    ordered = ranked(runs)
    shown = ordered[: len(svg.PALETTE)]
    longest = max(len(run.waf_by_round) for run in shown)
    rounds = svg.lines({run.name: run.waf_by_round for run in shown}, [f"round {index}" for index in range(longest)])
    settings = [(key, *values) for key, values in differing(ordered).items()]
    parts = [
        html.section("Runs", html.table(COLUMNS, comparison_rows(ordered)), note="Ranked by out-of-fold WAF of the final model."),
        html.section("WAF out of fold by round", rounds),
        _by_subset("Final models on the test split", {run.name: run.test for run in shown}),
        _by_subset("Final models out of fold", {run.name: run.out_of_fold for run in shown}),
        html.section("Settings that differ", html.table(("setting", *(run.name for run in ordered)), settings)),
    ]
    return html.page(title, parts)


def whole(scores: Scores, model: str, key: str) -> float:
    """Score of a model with all modalities."""
    return list(scores[model].values())[-1][key]


def _ends(scores: Scores | None) -> tuple[str, str, str]:
    if not scores:
        return "", "", ""
    first, last = (whole(scores, model, "waf") for model in ("supervised", "final"))
    return f"{first:.3f}", f"{last:.3f}", f"{last - first:+.3f}"


def _by_subset(title: str, scores: Mapping[str, Scores | None]) -> str:
    final = {name: told["final"] for name, told in scores.items() if told}
    if not final:
        return ""
    fullest = sorted(final.values(), key=len, reverse=True)
    subsets = list(dict.fromkeys(subset for by_subset in fullest for subset in by_subset))
    picture = svg.bars(
        {name: [by_subset[s]["waf"] if s in by_subset else nan for s in subsets] for name, by_subset in final.items()}, subsets
    )
    rows = [
        (name, subset, *(f"{by_subset[subset][key]:.3f}" for key in KEYS))
        for name, by_subset in final.items()
        for subset in subsets
        if subset in by_subset
    ]
    return html.section(title, picture, html.folded("all numbers", html.table(("run", "modalities", *KEYS.values()), rows)))
