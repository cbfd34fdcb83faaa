"""The report: whole without network or script, and safe whatever its users are called."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from orchestrator.reports.comparison import (
    RunSummary,
    comparison_rows,
    differing,
    ranked,
    render_comparison,
)
from orchestrator.reports.page import ReportData, Scores, Table, render, write_report
from orchestrator.vocabulary import Emotions, Rejected, RoundRecord, Verdict

HOSTILE = '<script>alert("x")</script>&\'"]]>--><svg onload=alert(1)>'
EMOTIONS = Emotions(("happy", "sad", HOSTILE))
SUBSETS = ("A", "V", "T", "AV", "AT", "VT", "AVT")
VOID = {"meta"}


def scores(start: float) -> Scores:
    return {
        model: {s: {"waf": start + i / 20, "uar": start, "accuracy": start} for i, s in enumerate(SUBSETS)}
        for model in ("supervised", "final")
    }


def record(index: int, verdict: Verdict = Verdict.PROMOTED) -> RoundRecord:
    return RoundRecord(
        index=index,
        teacher="t" if index else None,
        student="s",
        accepted_per_class=(5, 7, 0) if index else (0, 0, 0),
        threshold_per_class=(0.5, 0.75, 2.0) if index else (),
        val_f1=0.6 + index / 10,
        val_uar=0.5,
        val_accuracy=0.6,
        val_ece=0.05,
        verdict=verdict,
        reason=f"because {HOSTILE}",
        seconds=12,
        seed=0,
        pool_precision=0.9 if index else None,
    )


FULL = ReportData(
    title=f"toy {HOSTILE}",
    emotions=EMOTIONS,
    counts={"labeled": 60, f"test {HOSTILE}": 20},
    records=[record(0), record(1, Verdict.REJECTED), record(2)],
    confusion=np.array([[8, 1, 1], [2, 7, 1], [0, 0, 0]]),
    test_confusion=np.array([[3, 0, 0], [0, 3, 1], [1, 0, 2]]),
    reliability={"raw": np.array([[0.3, 0.2, 0.4], [0.9, 0.6, 0.6], [0, 0, 0]]), HOSTILE: np.array([[0.8, 0.8, 1.0]])},
    out_of_fold=scores(0.5),
    test=scores(0.4),
    precision_by_class={1: (0.8, None, None)},
    rejected=[Rejected(HOSTILE, "decode", "TRUNCATED", HOSTILE), Rejected("b", "decode", "EMPTY", "0 bytes")],
    doubtful=[(HOSTILE, HOSTILE)],
    suspect=[(f"clip {HOSTILE}", "rather sad")],
    notes=(HOSTILE,),
    fingerprint="abc123",
    settings={HOSTILE: HOSTILE, "seed": 0},
    tables=[Table(HOSTILE, ("a", HOSTILE), [(HOSTILE, "1.0")], note=HOSTILE)],
)


class Reader(HTMLParser):
    """Collects elements, attributes and text; fails on elements that are closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def runs() -> list[RunSummary]:
    same = {"seed": 0, "fusion.dropout": 0.1}
    return [
        RunSummary("plain", [0.5], scores(0.3), None, {**same, "policy": "none"}),
        RunSummary(HOSTILE, [0.5, 0.6, 0.7], scores(0.4), scores(0.4), {**same, "policy": HOSTILE, "only here": 1}),
    ]


@pytest.mark.parametrize("page", [render(FULL), render_comparison(HOSTILE, runs())], ids=["report", "comparison"])
def test_nothing_a_user_wrote_becomes_an_element(page: str) -> None:
    reader = Reader(page)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "iframe", "object", "embed", "img", "link", "base", "form"}
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    assert HOSTILE in "".join(reader.text)


@pytest.mark.parametrize("page", [render(FULL), render_comparison("runs", runs())], ids=["report", "comparison"])
def test_the_page_asks_nobody_for_anything(page: str) -> None:
    assert not re.search(r"https?:|//|url\(|@import|src=|href=", page)
    assert len(page) < 100_000


def test_the_page_tells_what_it_was_given() -> None:
    text = " ".join(Reader(render(FULL)).text)
    for told in (
        "run abc123",
        "0.700",
        "rejected",
        "5, 80% true, from 0.50",
        "7, from 0.75",
        "0, closed",
        "TRUNCATED",
        "0 bytes",
    ):
        assert told in text, told
    assert "raw: expected calibration error 0.220" in text  # |0.3 - 0.2| 0.4 + |0.9 - 0.6| 0.6
    for subset in SUBSETS:
        assert subset in text


def test_a_section_without_data_is_left_out() -> None:
    bare = render(ReportData("bare", EMOTIONS))
    assert "<h2>" not in bare
    for name in ("records", "confusion", "reliability", "out_of_fold", "test", "rejected", "doubtful", "suspect", "settings"):
        one = ReportData("bare", EMOTIONS, **{name: getattr(FULL, name)})
        Reader(render(one))
        assert render(one).count("<h2>") == (2 if name == "records" else 1), name


def test_round_0_alone_is_a_report() -> None:
    Reader(render(replace(FULL, records=[record(0)], precision_by_class=None)))


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "deep" / "report.html", FULL)
    write_report(tmp_path / "deep" / "report.html", FULL)
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == render(FULL)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_a_long_table_says_what_it_leaves_out() -> None:
    rejected = [Rejected(str(i), "decode", "EMPTY", "") for i in range(250)]
    assert "and 50 more" in render(ReportData("bare", EMOTIONS, rejected=rejected))


def test_runs_are_ranked_out_of_fold_and_never_by_the_test_split() -> None:
    better_test = replace(runs()[0], test=scores(0.6))
    assert [run.name for run in ranked([better_test, runs()[1]])] == [HOSTILE, "plain"]


def test_a_comparison_shows_only_settings_that_differ() -> None:
    assert differing(runs()) == {"only here": ["", "1"], "policy": ["none", HOSTILE]}
    assert comparison_rows(runs())[0] == ("plain", "0", "0.600", "0.600", "+0.000", "", "", "")


def test_runs_with_other_modalities_stand_beside_each_other() -> None:
    two = {model: {s: by[s] for s in ("V", "T", "VT")} for model, by in scores(0.3).items()}
    page = render_comparison("runs", [replace(runs()[0], out_of_fold=two), replace(runs()[1], out_of_fold=scores(0.2))])
    out_of_fold = page[page.index("Final models out of fold") :]
    assert out_of_fold.count("<rect") == 3 + 7
    assert "nan" not in page


def test_the_page_says_what_losing_a_modality_costs() -> None:
    text = " ".join(Reader(render(ReportData("bare", EMOTIONS, test=scores(0.4)))).text)
    row = text[text.index("without T without V without A") :]  # AVT 0.700, AV 0.550, AT 0.600, VT 0.650
    assert row.index("-0.150") < row.index("-0.100") < row.index("-0.050")


def test_comparing_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="finish a run first"):
        render_comparison("runs", [])
