"""Search dropout rates, thresholds or any other key on stored features: Tune trials, judged on out-of-fold human labels.

    python -m jobs.search experiment=toy
    python -m jobs.search experiment=toy job.trials=20 'job.space={selection.threshold: [0.5, 0.99], rounds.rounds: [1, 2, 3]}'
A pair of numbers is a range, anything else a list of choices. Every trial keeps its rounds; the same command runs none again.
"""

from jobs.launch import Command, launch
from orchestrator.cluster.corpus import check_inputs, gather
from orchestrator.cluster.search import draw, search
from orchestrator.cluster.session import session
from orchestrator.cluster.trials import Trial


def main(command: Command) -> None:
    experiment, job = command.experiment, command.job
    settings = draw(job.space, job.trials, experiment.seed)
    overrides = [[f"{key}={value}" for key, value in setting.items()] for setting in settings]
    commands = [Command.read([*command.overrides, *more]) for more in overrides]  # a wrong key fails here, before anything runs
    trials = [Trial(setting, trial.experiment) for setting, trial in zip(settings, commands, strict=True)]
    clips = check_inputs(experiment)
    with session(experiment.cluster):
        search(experiment, trials, gather(experiment, clips))


if __name__ == "__main__":
    launch(main, __doc__)
