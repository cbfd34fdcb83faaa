from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from orchestrator.encoders.clip import OpenClip
from orchestrator.encoders.emovclip import TunedClip, frozen_identity, refuse_in_fold
from orchestrator.errors import ConfigError, DamagedArtifact
from orchestrator.models.fold_models import fold_file, read_fold_models, read_judged, read_tensors
from orchestrator.training.fold_tuning import TuningTask, seal, tune_folds
from orchestrator.vocabulary import DecodedClip
from tests.tiny_clips import CONFIG, NAMES, load, pictures, tiny_clip
from tests.training.rehearsal import RECIPE, SCHEME

FOLDS = np.arange(12) % 3
DIGESTS = [f"digest-{number:02d}" for number in range(12)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> OpenClip:
    """The tiny CLIP as a directory, as a user names one."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    save_file(tiny_clip().state_dict(), folder / "open_clip_model.safetensors")
    return OpenClip(model=str(folder))


def task_of(base: OpenClip, **changes: object) -> TuningTask:
    frames, labels = pictures(12)
    recipe = replace(RECIPE, epochs=2, learning_rate=0.02, augmentation=None)
    task = TuningTask(recipe, NAMES, frames, DIGESTS, labels, FOLDS, frozen_identity(base), seed=0)
    return replace(task, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tuned(base: OpenClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = task_of(base)
    directory = tune_folds(task, load, tmp_path_factory.mktemp("tuned"))
    seal(task, directory)
    return directory


def clip(number: int, digest: str) -> DecodedClip:
    frames = pictures(12)[0][number]
    return DecodedClip(digest, frames, np.arange(2, dtype=np.float32), np.zeros(0, np.float32), 16_000, None, digest)


def test_a_labelled_clips_feature_comes_from_the_model_that_never_saw_it_and_others_from_all(base: OpenClip, tuned: Path) -> None:
    encoder = TunedClip(str(tuned), base).load()
    leaky = TunedClip(str(tuned), base, in_fold=True).load()
    for number in (0, 4, 11):
        known, same_pictures = encoder.encode([clip(number, DIGESTS[number]), clip(number, "never seen")]).values
        single = [
            TunedClip(str(only(tuned, fold)), base).load().encode([clip(number, "never seen")]).values[0] for fold in range(3)
        ]
        np.testing.assert_allclose(known, single[FOLDS[number]], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(same_pictures, np.mean(single, axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(leaky.encode([clip(number, DIGESTS[number])]).values[0], same_pictures, rtol=1e-5, atol=1e-6)


def only(tuned: Path, fold: int) -> Path:
    """A tuning run of which every model is that of one fold."""
    directory = tuned.with_name(f"{tuned.name}-{fold}")
    directory.mkdir(exist_ok=True)
    for name in ("folds.json", "recipe.json"):
        (directory / name).write_bytes((tuned / name).read_bytes())
    for each in range(3):
        fold_file(directory, each).write_bytes(fold_file(tuned, fold).read_bytes())
    return directory


def test_another_label_changes_every_fold_model_but_the_clips_own(base: OpenClip, tuned: Path, tmp_path: Path) -> None:
    labels = pictures(12)[1].copy()
    labels[4] = (labels[4] + 1) % len(NAMES)
    again = tune_folds(task_of(base, labels=labels), load, tmp_path)
    same = [fold_file(again, fold).read_bytes() == fold_file(tuned, fold).read_bytes() for fold in range(3)]
    assert same == [fold == FOLDS[4] for fold in range(3)]


def test_finished_folds_are_found_and_missing_ones_made(base: OpenClip, tuned: Path, tmp_path: Path) -> None:
    whole = {path.name: path.read_bytes() for path in tuned.iterdir()}
    for name, data in whole.items():
        if name not in ("fold_1.safetensors", "recipe.json", "folds.json"):
            (tmp_path / name).write_bytes(data)
    untouched = (tmp_path / "fold_0.safetensors").stat().st_mtime_ns
    with pytest.raises(DamagedArtifact, match="no finished tuning run"):
        read_fold_models(tmp_path)
    seal(task_of(base), tune_folds(task_of(base), load, tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert (tmp_path / "fold_0.safetensors").stat().st_mtime_ns == untouched


def test_every_labelled_clip_is_judged_once_beside_the_frozen_clip(base: OpenClip, tuned: Path) -> None:
    judged = read_judged(tuned, 3)
    assert sorted(judged["labels"].tolist()) == sorted(pictures(12)[1].tolist())
    assert judged["tuned"].shape == judged["zero_shot"].shape == (12, len(NAMES))
    said = TunedClip(str(tuned), base).load().look([clip(0, DIGESTS[0])])[0].logits
    torch.testing.assert_close(judged["tuned"][0], torch.from_numpy(said), atol=1e-4, rtol=1e-4)


def test_a_cached_trunk_serves_all_folds_and_is_gone_when_they_are_done(base: OpenClip, tmp_path: Path) -> None:
    recipe = replace(RECIPE, scheme=replace(SCHEME, first_layer=-1), epochs=2, looks=2)
    task = task_of(base, recipe=recipe)
    directory = tune_folds(task, load, tmp_path)
    assert len(list((directory / "trunk").rglob("*.npy"))) == 2 * 12
    seal(task, directory)
    assert not (directory / "trunk").exists()
    assert read_fold_models(directory).count == 3


def test_values_are_what_the_feature_is_made_of(base: OpenClip, tuned: Path) -> None:
    look = TunedClip(str(tuned), base).load().look([clip(1, "new")])[0]
    for values, expected in {
        "embedding": look.embedding,
        "hidden": look.hidden,
        "embedding+logits": np.concatenate([look.embedding, look.logits]),
    }.items():
        encoder = TunedClip(str(tuned), base, values=values).load()  # type: ignore[arg-type]
        row = encoder.encode([clip(1, "new")]).values[0]
        assert row.shape == (encoder.width,)
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    assert look.attention.shape == (2,)
    np.testing.assert_allclose(look.frame_logits.mean(axis=0), look.logits, rtol=1e-4, atol=1e-5)


def test_in_fold_features_are_refused_and_the_message_says_why(base: OpenClip, tuned: Path) -> None:
    refuse_in_fold([base, TunedClip(str(tuned), base)])
    with pytest.raises(ConfigError, match=r"the label is in the feature.*data\.in_fold=true"):
        refuse_in_fold([base, TunedClip(str(tuned), base, in_fold=True)])
    with pytest.raises(ValueError, match="without a digest"):
        TunedClip(str(tuned), base).load().encode([clip(0, "")])


def test_a_checkpoint_knows_its_clip_and_its_scheme(base: OpenClip, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedArtifact, match="give the CLIP it was tuned on"):
        TunedClip(str(tuned), OpenClip()).identity()
    assert TunedClip(str(tuned), base).identity() != TunedClip(str(tuned), base, values="hidden").identity()
    for path in tuned.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file({"visual.time": torch.zeros(1)}, fold_file(tmp_path, 2))
    with pytest.raises(DamagedArtifact, match=r"do not fit the scheme: .*text\.context"):
        TunedClip(str(tmp_path), base).load()
    fold_file(tmp_path, 2).write_bytes(b"torn")
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        read_tensors(fold_file(tmp_path, 2))


def test_patience_needs_a_fold_to_stop_by(base: OpenClip, tmp_path: Path) -> None:
    task = task_of(base, recipe=replace(RECIPE, patience=2), folds=np.arange(12) % 2)
    with pytest.raises(ConfigError, match="patience"):
        tune_folds(task, load, tmp_path)
