"""The champion on a split, or on videos it has never seen: label and per-class probabilities as CSV and Parquet.

    python -m jobs.predict experiment=toy                                      the test split
    python -m jobs.predict experiment=toy job.videos=my.mp4                    one video; my.txt beside it is what is said
    python -m jobs.predict experiment=toy job.videos=~/clips job.out=answers   every video below a folder
    python -m jobs.predict experiment=toy job.submission=candidates.csv        a challenge submission, name,discrete
    python -m jobs.predict experiment=toy job.pseudo_labels=merr.txt           the last round's labels as Emotion-LLaMA reads them
Takes the experiment whose run is to speak: a video passes through the very decoding and encoders the model was trained with.
"""

from pathlib import Path

from jobs.launch import Command, launch
from orchestrator.cluster.champion import export_pseudo_labels, predict_candidates, predict_split, predict_videos
from orchestrator.cluster.corpus import check_inputs
from orchestrator.cluster.session import session
from orchestrator.reports.console import show_answers
from orchestrator.vocabulary import Split


def main(command: Command) -> None:
    experiment, job = command.experiment, command.job
    if job.pseudo_labels:
        print(*export_pseudo_labels(experiment, command.settings, Path(job.pseudo_labels).expanduser()))
        return
    clips = () if job.videos else check_inputs(experiment)
    with session(experiment.cluster):
        if job.videos:
            written = predict_videos(experiment, command.settings, Path(job.videos).expanduser(), job.out)
        elif job.submission:
            written = predict_candidates(experiment, clips, Path(job.submission).expanduser(), job.out)
        else:
            written = predict_split(experiment, clips, Split(job.split), job.out)
    show_answers(written[0])
    for path in written:
        print(path)


if __name__ == "__main__":
    launch(main, __doc__)
