"""Features of every clip and encoder: manifest -> store. A second run encodes nothing again.

python -m jobs.extract experiment=toy
python -m jobs.extract data.manifest=clips.csv job.retry=true          decode again what was rejected before
python -m jobs.extract data.manifest=clips.csv job.out=features        ... and write them as MERTools keeps them
"""

from dataclasses import replace
from pathlib import Path

from jobs.launch import Command, launch
from orchestrator.cluster.corpus import check_inputs, gather
from orchestrator.cluster.session import session
from orchestrator.reports.console import show_rejected
from orchestrator.stores.mertools import write_corpus


def main(command: Command) -> None:
    experiment, job = command.experiment, command.job
    clips = check_inputs(experiment)
    encoded = replace(experiment, data=replace(experiment.data, within_speakers=False))  # as the encoders gave them
    with session(experiment.cluster):
        corpus = gather(encoded, clips, retry=job.retry)
    present = corpus.features.present.mean(axis=0)
    for stream, share in zip(corpus.features.streams, present, strict=True):
        width = corpus.features.values[stream].shape[1]
        print(f"{stream}: {len(corpus.clips)} clips x {width}, present in {share:.1%}")
    show_rejected(corpus.rejected)
    if job.out:
        for path in write_corpus(Path(job.out), corpus.clips, corpus.features, experiment.emotions):
            print(path)


if __name__ == "__main__":
    launch(main, __doc__)
