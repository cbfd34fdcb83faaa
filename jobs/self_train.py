"""The main job: everything that is missing (features, tuned prompts), then teacher-student rounds, the test split once, a report.

    python -m jobs.self_train experiment=toy
    python -m jobs.self_train data.manifest=clips.csv name=mine rounds.rounds=5
Killed at any moment, the same command goes on from what was finished.
"""

from jobs.launch import Command, launch
from orchestrator.cluster.corpus import check_inputs, gather
from orchestrator.cluster.publish import publish
from orchestrator.cluster.run import Run, self_train
from orchestrator.cluster.session import session
from orchestrator.reports.console import show_round


def main(command: Command) -> None:
    experiment = command.experiment
    check_inputs(experiment)
    with session(experiment.cluster):
        corpus = gather(experiment, retry=command.job.retry)
        run = Run.of(experiment, corpus.identity)
        records = []
        for record in self_train(experiment, corpus, run):
            records.append(record)
            show_round(record, experiment.emotions)
    publish(experiment, corpus, run, records, settings=command.settings)


if __name__ == "__main__":
    launch(main, __doc__)
