from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.cluster.corpus import files_root, frozen_folds, gather, read_clips
from orchestrator.cluster.leak import in_fold, leak_table
from orchestrator.cluster.tune import held_out_table, telling_frames, tuned_clip
from orchestrator.encoders.emovclip import TunedClip
from orchestrator.errors import ConfigError
from orchestrator.models.fold_models import read_fold_models
from orchestrator.settings import Experiment
from orchestrator.vocabulary import Split
from tests.cluster.conftest import MakeExperiment

pytestmark = pytest.mark.cluster
QUICK = ("prompts=emovclip", "prompts.epochs=3", "prompts.looks=1", "prompts.learning_rate=0.004")


def tune(experiment: Experiment) -> TunedClip:
    clips = read_clips(experiment)
    return tuned_clip(experiment, clips, frozen_folds(clips, experiment), files_root(experiment))


def test_two_workers_tune_the_models_that_the_driver_tunes_alone(
    cluster: None, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    alone = tune(make_experiment(*QUICK))
    shared = tune(make_experiment(*QUICK, "cluster.fit_workers=2", store=tmp_path))
    assert Path(alone.checkpoint).name == Path(shared.checkpoint).name  # workers are execution, not identity
    one, two = (read_fold_models(Path(encoder.checkpoint)) for encoder in (alone, shared))
    assert one.folds == two.folds
    for fold in range(one.count):
        for name, value in one.tensors(fold).items():
            torch.testing.assert_close(two.tensors(fold)[name], value, atol=1e-5, rtol=0)


def test_tuned_features_are_out_of_fold_and_the_report_shows_what_a_leak_would_claim(
    cluster: None, make_experiment: MakeExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make_experiment(*QUICK)
    corpus = gather(experiment)
    assert gather(experiment).identity == corpus.identity
    assert "tuned prompts" in capsys.readouterr().out
    video = next(recipe for recipe in corpus.recipes if recipe.stream == "video")
    assert isinstance(video, TunedClip)
    judged = held_out_table(video)
    assert [row[:2] for row in judged.rows] == [("zero-shot", str(len(corpus.folds))), ("tuned", str(len(corpus.folds)))]
    ids = {clip.digest: clip.clip_id for clip in corpus.clips}
    frames = telling_frames(video, ids, experiment.emotions.names)
    labels = {clip.clip_id: experiment.emotions.names[clip.label] for clip in corpus.clips if clip.label is not None}
    assert all(labels[row[0]] == row[1] and len(row[2].split()) == experiment.decode.frames for row in frames.rows)

    raw = replace(experiment, data=replace(experiment.data, within_speakers=False))
    honest = gather(raw)
    leaky = in_fold(raw, honest).features.values["video"]
    moved = np.abs(leaky - honest.features.values["video"]).max(axis=1) > 1e-6
    assert moved.tolist() == [clip.split is Split.LABELLED for clip in honest.clips]

    table = leak_table(experiment, corpus)
    assert table is not None
    assert [row[:2] for row in table.rows] == [(way, s) for way in ("out of fold", "in fold") for s in ("V", "AV", "VT", "AVT")]
    assert all(0 <= float(cell) <= 1 for row in table.rows for cell in row[2:])
    assert leak_table(make_experiment(), gather(make_experiment())) is None


def test_a_run_refuses_in_fold_features_unless_told(cluster: None, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(*QUICK)
    leaky = replace(tune(experiment), in_fold=True)
    careless = replace(experiment, prompts=None, encoders={"video": leaky})
    with pytest.raises(ConfigError, match="the label is in the feature"):
        gather(careless)
    told = gather(replace(careless, data=replace(experiment.data, in_fold=True)))
    assert told.features.streams == ("video",)


@pytest.mark.parametrize(
    ("override", "message"),
    [("video=none", "video=tiny_clip"), ("prompts.scheme.first_layer=9", "choose -5 to 5"), ("prompts.patience=1", None)],
)
def test_prompts_that_cannot_be_tuned_end_in_one_message(
    cluster: None, make_experiment: Callable[..., Experiment], override: str, message: str | None, tmp_path: Path
) -> None:
    experiment = make_experiment(*QUICK, override)
    if message is None:  # three folds: one held out, one to stop by, one to learn from
        assert tune(experiment).checkpoint
        return
    with pytest.raises(ConfigError, match=message):
        tune(experiment)
