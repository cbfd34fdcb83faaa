"""EmoVCLIP: tune CLIP's prompts on the labelled clips, a model a fold, and nothing else. A second run finds them.

python -m jobs.tune_prompts experiment=toy prompts=emovclip
"""

from jobs.launch import Command, launch
from orchestrator.cluster.corpus import check_inputs, files_root, frozen_folds
from orchestrator.cluster.session import session
from orchestrator.cluster.tune import held_out_table, tuned_clip
from orchestrator.reports.console import show_rows


def main(command: Command) -> None:
    experiment = command.experiment
    clips = check_inputs(experiment)
    with session(experiment.cluster):
        encoder = tuned_clip(experiment, clips, frozen_folds(clips, experiment), files_root(experiment))
    told = held_out_table(encoder)
    show_rows(f"{told.title}. {told.note}", told.columns, told.rows)
    print(f"tuned prompts: {encoder.checkpoint}")


if __name__ == "__main__":
    launch(main, __doc__)
