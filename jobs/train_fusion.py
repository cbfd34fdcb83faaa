"""One supervised fusion run: round 0 and nothing after it.

python -m jobs.train_fusion experiment=toy fusion.modality_dropout.rate=0.3
"""

from dataclasses import replace

from jobs.launch import Command, launch
from jobs.self_train import main as self_train


def main(command: Command) -> None:
    supervised = replace(command.experiment, rounds=replace(command.experiment.rounds, rounds=0))
    self_train(replace(command, experiment=supervised))


if __name__ == "__main__":
    launch(main, __doc__)
