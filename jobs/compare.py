"""Finished runs side by side: out-of-fold and test WAF, supervised and final, best first.

python -m jobs.compare
python -m jobs.compare store=outputs
"""

from jobs.launch import Command, launch
from orchestrator.cluster.publish import compare
from orchestrator.errors import InputError
from orchestrator.reports.console import show_rows


def main(command: Command) -> None:
    rows = compare(command.experiment.store)
    if not rows:
        raise InputError(f"no finished run in {command.experiment.store}: run jobs.self_train first, or say store=...")
    columns = ("run", "rounds", "WAF out of fold, supervised", "final", "WAF test, supervised", "final")
    show_rows("finished runs", columns, rows)


if __name__ == "__main__":
    launch(main, __doc__)
