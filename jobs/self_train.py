"""The main job: everything that is missing (features, tuned prompts), then teacher-student rounds, the test split once, a report.

    python -m jobs.self_train experiment=toy
    python -m jobs.self_train data.manifest=clips.csv name=mine rounds.rounds=5
Killed at any moment, the same command goes on from what was finished.
"""

from jobs.launch import Command, launch
from orchestrator.cluster.corpus import check_inputs, gather
from orchestrator.cluster.publish import in_public
from orchestrator.cluster.run import Run, self_train
from orchestrator.cluster.session import session


def main(command: Command) -> None:
    experiment = command.experiment
    clips = check_inputs(experiment)
    with session(experiment.cluster):
        corpus = gather(experiment, clips, retry=command.job.retry)
        run = Run.of(experiment, corpus)
        in_public(experiment, corpus, run, self_train(experiment, corpus, run), command.settings)


if __name__ == "__main__":
    launch(main, __doc__)
