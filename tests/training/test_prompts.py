from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from orchestrator.errors import DamagedArtifact, Diverged
from orchestrator.models.emovclip import EmoVclip
from orchestrator.models.fold_models import read_tensors
from orchestrator.training.augmentation import Augmentation
from orchestrator.training.prompts import PromptRecipe, predict, tune
from orchestrator.training.trunk import PLAIN, CachedTokens, LiveTokens, StoredArrays, cache_trunk, store_array
from orchestrator.training.tuning_run import EpochReport
from tests.tiny_clips import NAMES, pictures
from tests.training.rehearsal import CLIPS, RECIPE, SCHEME, fresh_model, rehearse

QUICK = replace(RECIPE, epochs=1, augmentation=None)


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """What 20 steps on one worker end with."""
    return {name: value.detach() for name, value in rehearse().tensors().items()}


def process(rank: int, world: int, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    module = [sys.executable, "-m", "tests.training.rehearsal", str(rank), str(world)]
    return subprocess.Popen([*module, str(folder / "meeting"), str(folder / "tuned.safetensors"), *words])


def test_two_workers_end_with_the_weights_of_one(alone: dict[str, Tensor], tmp_path: Path) -> None:
    workers = [process(rank, 2, tmp_path) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    for name, value in read_tensors(tmp_path / "tuned.safetensors").items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=0)


def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_to_the_same_weights(alone: dict[str, Tensor], tmp_path: Path) -> None:
    assert process(0, 1, tmp_path, "die").wait(timeout=120) == -signal.SIGKILL
    assert (tmp_path / "tuned.progress").exists()
    model = rehearse(progress=tmp_path / "tuned.progress")
    for name, value in model.tensors().items():
        torch.testing.assert_close(value, alone[name], atol=1e-6, rtol=0)


def test_what_is_frozen_stays_as_it_was_to_the_bit_and_all_that_is_listed_moves() -> None:
    before = {name: value.clone() for name, value in fresh_model().state_dict().items()}
    model = rehearse(recipe=QUICK)
    listed = set(model.tensors())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) is (name not in listed), name


def learnt(recipe: PromptRecipe, **options: object) -> tuple[EmoVclip, LiveTokens, np.ndarray]:
    frames, labels = pictures(CLIPS)
    model = fresh_model(recipe.scheme)
    tokens = LiveTokens(model, frames, recipe.augmentation, seed=0)
    tune(recipe, model, tokens, labels, options.pop("train", np.arange(CLIPS)), seed=0, **options)  # type: ignore[arg-type]
    return model, tokens, labels


def test_it_learns_and_the_clips_that_judge_have_no_say() -> None:
    recipe = replace(RECIPE, epochs=8, learning_rate=4e-3, augmentation=None)
    train, held_out = np.arange(30), np.arange(30, CLIPS)
    told: list[EpochReport] = []
    model, tokens, labels = learnt(recipe, train=train, judge=held_out, on_epoch=told.append)
    assert [report.epoch for report in told] == list(range(8))
    assert told[-1].loss < told[0].loss
    assert told[-1].judged_loss is not None
    assert told[-1].judged_loss < 0.7 * np.log(len(NAMES))
    assert (predict(model, tokens, held_out).argmax(dim=1).numpy() == labels[held_out]).mean() > 0.8
    unjudged, _, _ = learnt(recipe, train=train)
    for name, value in unjudged.tensors().items():
        assert torch.equal(value, model.tensors()[name]), name


def test_early_stopping_takes_the_best_epoch_on_clips_it_has_set_aside() -> None:
    told: list[EpochReport] = []
    recipe = replace(RECIPE, epochs=30, learning_rate=0.05, augmentation=None, patience=2)
    learnt(recipe, stop_by=np.arange(30, CLIPS), train=np.arange(30), on_epoch=told.append)
    assert 2 < len(told) < 30
    with pytest.raises(ValueError, match="stop_by"):
        learnt(recipe)


def test_weight_decay_acts_on_matrices_alone() -> None:
    one_step = replace(QUICK, clips_per_batch=CLIPS, clips_per_micro_batch=CLIPS)
    plain, _, _ = learnt(replace(one_step, weight_decay=0.0))
    decayed, _, _ = learnt(replace(one_step, weight_decay=0.5))
    moved = {name for name, value in plain.tensors().items() if not torch.equal(value, decayed.tensors()[name])}
    assert moved == {name for name, value in plain.tensors().items() if name.endswith(".weight") and value.ndim == 2}


def test_gradients_are_those_of_the_whole_batch_however_it_is_cut() -> None:
    whole, _, _ = learnt(replace(QUICK, clips_per_micro_batch=8))
    cut, _, _ = learnt(replace(QUICK, clips_per_micro_batch=3))
    for name, value in whole.tensors().items():
        torch.testing.assert_close(value, cut.tensors()[name], atol=1e-5, rtol=0)


def test_a_strong_anchor_keeps_the_answers_of_the_frozen_clip() -> None:
    labels = np.roll(pictures(CLIPS)[1], 1)  # wrong on purpose
    gaps = []
    for anchor in (0.0, 30.0):
        recipe = replace(RECIPE, scheme=replace(SCHEME, first_layer=3, context="a person who looks"), anchor=anchor)
        model = fresh_model(recipe.scheme)
        tokens = LiveTokens(model, pictures(CLIPS)[0], None, seed=0)
        tune(replace(recipe, learning_rate=0.01), model, tokens, labels, np.arange(CLIPS), seed=0)
        clips = np.arange(CLIPS)
        frozen = predict(model, tokens, clips, model.zero_shot).softmax(dim=1)
        gaps.append(float((predict(model, tokens, clips).softmax(dim=1) - frozen).abs().mean()))
    assert gaps[1] < 0.3 * gaps[0]


def test_a_cached_trunk_gives_the_logits_of_one_computed_anew_within_half_precision(tmp_path: Path) -> None:
    frames, _ = pictures(6, frames=3)
    model = fresh_model(replace(SCHEME, first_layer=2))
    keys = [str(number) for number in range(6)]
    stored = cache_trunk(model, frames, keys, tmp_path, augmentation=Augmentation(), looks=2, seed=0)
    cached = CachedTokens(stored, model.logit_scale.device)
    live = LiveTokens(model, frames, Augmentation(), seed=0)
    bound = float(model.logit_scale.detach().exp()) * 2**-9
    for told, epoch in ((PLAIN, PLAIN), (1, 0)):  # look 0 is the plain clip, look 1 that of live epoch 0
        with torch.no_grad():
            x, y = (model(tokens(range(6), at)[0], model.classes()).logits for tokens, at in ((cached, told), (live, epoch)))
        assert not torch.equal(x, y)
        assert (x - y).abs().max() < bound
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    cache_trunk(model, frames, keys, tmp_path, augmentation=Augmentation(), looks=2, seed=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == before  # found, not made again


def test_a_damaged_array_is_named_with_the_remedy(tmp_path: Path) -> None:
    store_array(tmp_path, "clip", np.zeros(9))
    store_array(tmp_path, "clip", np.ones(9))  # it is there: not written again
    stored = StoredArrays(tmp_path, ["clip"])
    assert stored[0].tolist() == [0.0] * 9
    (tmp_path / "clip.npy").write_bytes(b"torn")
    with pytest.raises(DamagedArtifact, match=r"clip\.npy cannot be read.*Delete it"):
        stored[0]


def test_a_loss_that_is_not_finite_ends_the_run_with_the_remedy() -> None:
    with pytest.raises(Diverged, match=r"prompts\.learning_rate"):
        learnt(replace(RECIPE, learning_rate=1e30, augmentation=None))


def test_every_frame_of_a_clip_is_augmented_alike_and_equal_seeds_give_equal_pictures() -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), dtype=np.uint8), 4, axis=0)
    looks = [Augmentation(magnitude=20)(still, seed=seed) for seed in range(8)]
    for look in looks:
        assert look.shape == still.shape
        assert all(np.array_equal(look[0], frame) for frame in look)
    assert len({look.tobytes() for look in looks}) == 8
    assert np.array_equal(Augmentation(magnitude=20)(still, seed=3), looks[3])


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"label_smoothing": -0.1}, {"class_weights": "some"}]
)
def test_a_wrong_recipe_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PromptRecipe(**wrong)  # type: ignore[arg-type]
