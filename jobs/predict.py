"""The champion on a split, or on a folder of videos: label and per-class probabilities as CSV and Parquet.

    python -m jobs.predict experiment=toy                       the test split
    python -m jobs.predict experiment=toy job.folder=~/clips job.out=answers
Takes the experiment whose run is to speak: a video passes through the very decoding and encoders the model was trained with.
"""

from jobs.launch import Command, launch
from orchestrator.cluster.champion import predict_folder, predict_split
from orchestrator.cluster.corpus import check_inputs
from orchestrator.cluster.session import session
from orchestrator.vocabulary import Split


def main(command: Command) -> None:
    experiment, job = command.experiment, command.job
    check_inputs(experiment)
    with session(experiment.cluster):
        if job.folder:
            written = predict_folder(experiment, job.folder, job.out)
        else:
            written = predict_split(experiment, Split(job.split), job.out)
    for path in written:
        print(path)


if __name__ == "__main__":
    launch(main, __doc__)
