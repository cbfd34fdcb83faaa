"""Finished runs side by side: out-of-fold and test WAF, supervised and final, what differed; as a table and an HTML page.

python -m jobs.compare
python -m jobs.compare store=outputs job.out=comparison.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.launch import launch_reader
from orchestrator.errors import InputError
from orchestrator.reports.comparison import COLUMNS, RunSummary, comparison_rows, ranked, render_comparison
from orchestrator.reports.console import show_rows
from orchestrator.reports.html import write_page
from orchestrator.stores.runs import SETTINGS, SUMMARY, decisive, flatten, read_about


def main(settings: Mapping[str, Any]) -> None:
    store = Path(settings["store"]).expanduser()
    runs = ranked([_summary(path.parent) for path in sorted((store / "runs").glob(f"*/{SUMMARY}"))])
    if not runs:
        raise InputError(f"no finished run in {store}: run jobs.self_train first, or say store=...")
    show_rows("finished runs, by out-of-fold WAF of the final model", COLUMNS, comparison_rows(runs))
    page = Path(settings["job"]["out"] or store / "comparison.html")
    write_page(page, render_comparison(f"Runs of {store.name}", runs))
    print(f"page  {page}")


def _summary(run: Path) -> RunSummary:
    told = read_about(run, SUMMARY)
    waf = [record["val_f1"] for record in told["rounds"]]
    return RunSummary(told["name"], waf, told["out_of_fold"], told["test"] or None, flatten(decisive(read_about(run, SETTINGS))))


if __name__ == "__main__":
    launch_reader(main, __doc__)
