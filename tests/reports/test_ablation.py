"""Tables of ablations: paired by seed, failures said, the test split beside what one should choose by."""

from __future__ import annotations

from orchestrator.reports.ablation import COLUMNS, AblationTable, Cell, ablation_rows, render_ablations
from tests.reports.test_page import HOSTILE, Reader


def cell(waf: float, test: float | None, *, lost: float = 0.1) -> Cell:
    by_subset = {"A": 0.3, "V": 0.4, "AV": waf}
    return Cell(by_subset, None if test is None else {"A": test - lost, "V": test - lost / 2, "AV": test})


TABLE = AblationTable(
    f"dropout {HOSTILE}",
    {
        "none": [cell(0.5, 0.4), cell(0.7, 0.6)],
        "more": [cell(0.6, 0.5, lost=0.2), cell(0.8, 0.6, lost=0.2)],
        "mixed": [cell(0.5, 0.4), cell(0.9, 0.8)],
        HOSTILE: [None, cell(0.8, 0.6)],
    },
)


def test_an_ablation_is_paired_by_seed() -> None:
    rows = ablation_rows(TABLE)
    assert rows[0] == ("none", "0.600 ± 0.141", "", "", "0.500 ± 0.141", "", "0.100 ± 0.000", "2 of 2")
    assert rows[1][1:6] == ("0.700 ± 0.141", "+0.100 ± 0.000", "2 of 2", "0.550 ± 0.071", "+0.050 ± 0.071")
    assert rows[1][6] == "0.200 ± 0.000"
    assert rows[2][2:4] == ("+0.100 ± 0.141", "1 of 2")
    assert all(len(row) == len(COLUMNS) for row in rows)


def test_a_failed_seed_is_said_and_pairs_only_what_there_is() -> None:
    name, waf, gain, wins, *_ = ablation_rows(TABLE)[3]
    assert name.endswith("(1 failed)")
    assert (waf, gain, wins) == ("0.800 ± 0.000", "+0.100 ± 0.000", "1 of 1")


def test_without_a_test_split_its_columns_are_empty() -> None:
    rows = ablation_rows(AblationTable("t", {"a": [cell(0.5, None)], "b": [cell(0.6, None)]}))
    assert rows[1][4:6] == ("", "")
    assert rows[1][6] == "0.300 ± 0.000"  # out of fold: AV 0.6, A 0.3


def test_one_modality_alone_loses_nothing() -> None:
    assert ablation_rows(AblationTable("t", {"a": [Cell({"A": 0.5}, None)]}))[0][6] == ""


def test_the_page_shows_every_table_and_escapes_its_names() -> None:
    page = render_ablations(HOSTILE, [TABLE, AblationTable("rounds", {"0": [cell(0.5, None)]})])
    reader = Reader(page)
    assert not {tag for tag, _ in reader.elements} & {"script", "img", "iframe"}
    assert HOSTILE in "".join(reader.text)
    assert "nan" not in page
    assert page.count("<h2>") == 2
