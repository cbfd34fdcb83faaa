"""What a terminal and a job's log are told."""

from __future__ import annotations

import pytest

from orchestrator.reports.console import show_rejected, show_rows
from orchestrator.reports.progress import LINE_EVERY_S, Bar, progress
from orchestrator.vocabulary import Rejected


def test_brackets_of_users_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows("[bold]runs[/bold]", ("clip",), [("[red]a[/red] :smile:",)])
    out = capsys.readouterr().out
    assert "[red]a[/red] :smile:" in out
    assert "[bold]runs" in out


def test_a_log_is_wide_enough_for_a_wide_table(capsys: pytest.CaptureFixture[str]) -> None:
    cells = tuple(f"some-long-run-name-{i}" for i in range(6))
    show_rows("runs", tuple("abcdef"), [cells])
    out = capsys.readouterr().out
    assert all(cell in out for cell in cells)


def test_rejected_clips_are_counted_by_code(capsys: pytest.CaptureFixture[str]) -> None:
    show_rejected(
        [Rejected("a", "decode", "EMPTY", "0 bytes"), Rejected("b", "decode", "EMPTY", "x"), Rejected("c", "d", "VFR", "")]
    )
    lines = capsys.readouterr().out.splitlines()
    assert any("EMPTY" in line and " 2 " in line and "0 bytes" in line for line in lines)
    show_rejected([])
    assert capsys.readouterr().out == ""


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(1000, "extract") as bar:
        for _ in range(999):
            bar.advance(1)
        assert capsys.readouterr().out == ""
        bar.told -= LINE_EVERY_S
        bar.advance(0)
        assert "999 of 1000" in capsys.readouterr().out
        bar.advance(1)
    assert capsys.readouterr().out.startswith("extract: 1000 of 1000 (100%)")


def test_a_line_says_how_long_it_still_takes() -> None:
    bar = Bar(100, "extract", done=25)
    bar.started -= 60
    assert bar.line() == "extract: 25 of 100 (25%) in 1 min 00 s, 0.4/s, 3 min 00 s left"


def test_nothing_to_do_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(0, "extract") as bar:
        bar.advance(0)
    assert bar.line().startswith("extract: 0 of 0 (0%)")
    assert capsys.readouterr().out == ""
