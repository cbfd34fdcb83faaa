"""Features of every clip and encoder: manifest -> store. A second run encodes nothing again.

python -m jobs.extract experiment=toy
python -m jobs.extract data.manifest=clips.csv job.retry=true      decode again what was rejected before
"""

from jobs.launch import Command, launch
from orchestrator.cluster.corpus import gather
from orchestrator.cluster.session import session
from orchestrator.reports.console import show_rejected


def main(command: Command) -> None:
    with session(command.experiment.cluster):
        corpus = gather(command.experiment, retry=command.job.retry)
    present = corpus.features.present.mean(axis=0)
    for stream, share in zip(corpus.features.streams, present, strict=True):
        width = corpus.features.values[stream].shape[1]
        print(f"{stream}: {len(corpus.clips)} clips x {width}, present in {share:.1%}")
    show_rejected(corpus.rejected)


if __name__ == "__main__":
    launch(main, __doc__)
