"""How far a running job is, from any other terminal; job.stop=true asks it to end after the round it is in.

python -m jobs.status experiment=toy
python -m jobs.status experiment=toy job.stop=true    the best model so far is the result, as if rounds.rounds had been less
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.launch import launch_reader
from orchestrator.cluster.explain import finished_rounds
from orchestrator.reports.console import show_rows
from orchestrator.stores.runs import find_run, stop_walk, walk_of


def main(settings: Mapping[str, Any]) -> None:
    run = find_run(Path(settings["store"]).expanduser(), settings)
    rows = [
        (str(told["index"]), f"{told['val_f1']:.3f}", str(sum(told["accepted_per_class"])), told["verdict"], told["reason"])
        for _, told in finished_rounds(run)
    ]
    if rows:
        show_rows(f"rounds of {run.name}", ("round", "WAF", "pseudo-labels", "verdict", "why"), rows)
    if settings["job"]["stop"]:
        stop_walk(run)
    print(walk_of(run))


if __name__ == "__main__":
    launch_reader(main, __doc__)
