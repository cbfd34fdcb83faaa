"""Ablations in one command: modalities, dropout rates, policies, rounds over several seeds: tables with spread and differences.

    python -m jobs.ablate experiment=toy                                   the paper's tables for one's own data
    python -m jobs.ablate experiment=toy job/ablations=dropout job.seeds=5
A row is a name and a list of overrides, in a file of configs/job/ablations/. Finished cells are found again.
"""

from pathlib import Path

from jobs.launch import Command, launch
from orchestrator.cluster.ablate import Row, ablate
from orchestrator.cluster.corpus import check_inputs
from orchestrator.cluster.session import session
from orchestrator.cluster.telling import tell_ablation
from orchestrator.errors import ConfigError
from orchestrator.reports.ablation import COLUMNS, ablation_rows, render_ablations
from orchestrator.reports.console import show_rows
from orchestrator.reports.html import write_page


def main(command: Command) -> None:
    experiment, job = command.experiment, command.job
    if not job.ablations:
        raise ConfigError("job.ablations is empty: say job/ablations=paper, or write a file of rows in configs/job/ablations/")
    check_inputs(experiment)
    rows = [Row(name, Command.read([*command.overrides, *more]).experiment) for name, more in job.ablations.items()]
    with session(experiment.cluster):
        tables, trials = ablate(rows, job.seeds)
    for table in tables:
        show_rows(table.title, COLUMNS, ablation_rows(table))
    page = Path(job.out) if job.out else experiment.store / f"ablation-{experiment.name}.html"
    write_page(page, render_ablations(f"Ablations of {experiment.name}, {job.seeds} seeds", tables))
    tell_ablation(experiment, tables, trials, page)
    print(f"page  {page}")


if __name__ == "__main__":
    launch(main, __doc__)
