"""Fusion ensembles: members see what they may see, a group comes out the same anywhere, what is saved speaks alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from orchestrator.errors import Diverged
from orchestrator.models.fusion import AttentionFusion, GatedExperts, Linear
from orchestrator.models.modality_dropout import ModalityDropout
from orchestrator.training.columns import Columns, bases
from orchestrator.training.ensemble import Ensemble, FusionRecipe, fit_members, member_groups, subset_logits
from orchestrator.vocabulary import Features

CLIPS, C, FOLDS = 60, 3, 2
QUICK = FusionRecipe(head=AttentionFusion(width=8), seeds=2, components=4, epochs=1, min_steps=40, lr=1e-2)
TRUTH = np.arange(CLIPS) % C
OWNERS = (np.arange(CLIPS) // C) % FOLDS  # the fold that must not see a clip


def features(seed: int = 0, noise: float = 1.0) -> Features:
    """Two streams that both tell the class, through noise."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(2, C, 12)) * 2
    values = {
        stream: (centres[m][TRUTH] + noise * rng.normal(size=(CLIPS, 12))).astype(np.float32)
        for m, stream in enumerate(("video", "audio"))
    }
    return Features(np.array([f"clip{i:03d}" for i in range(CLIPS)]), values, np.ones((CLIPS, 2), dtype=bool))


def lesson(truth: NDArray[np.int64] = TRUTH) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    targets = np.repeat(np.eye(C, dtype=np.float32)[truth][None], FOLDS, axis=0)
    return targets, (np.arange(FOLDS)[:, None] != OWNERS).astype(np.float32)


def fitted(recipe: FusionRecipe = QUICK, clips: Features | None = None, **options: object) -> Ensemble:
    clips = clips or features()
    read = bases([clips], recipe.components, seed=0)
    return fit_members(recipe, read, Columns.of(clips, read), *lesson(), **({"seed": 0} | options))


def told(ensemble: Ensemble, clips: Features | None = None) -> NDArray[np.float32]:
    return ensemble.logits(ensemble.read(clips or features()))


@pytest.mark.parametrize("head", [AttentionFusion(width=8), GatedExperts(width=8), Linear()], ids=repr)
def test_an_ensemble_learns_what_two_streams_tell_about_clips_it_has_not_seen(
    head: AttentionFusion | GatedExperts | Linear,
) -> None:
    ensemble = fitted(replace(QUICK, head=head))
    logits = ensemble.average(told(ensemble), OWNERS)
    assert (logits.argmax(axis=1) == TRUTH).mean() > 0.9


def test_a_row_of_weight_0_does_not_change_a_bit_of_a_member() -> None:
    clips, (targets, weights) = features(), lesson()
    read = bases([clips], 4, seed=0)
    lied = targets.copy()
    lied[weights == 0] = np.roll(lied[weights == 0], 1, axis=1)
    honest = fit_members(QUICK, read, Columns.of(clips, read), targets, weights, seed=0)
    misled = fit_members(QUICK, read, Columns.of(clips, read), lied, weights, seed=0)
    assert all(torch.equal(tensor, misled.weights[name]) for name, tensor in honest.weights.items())


def test_a_group_of_members_is_the_same_wherever_and_with_whomever_it_is_trained() -> None:
    together, groups = fitted(), member_groups(QUICK, FOLDS)
    parts = [fitted(members=group) for group in reversed(groups)]
    merged = Ensemble.merge(parts)
    assert merged.members == together.members == ((0, 0), (1, 0), (0, 1), (1, 1))
    assert all(torch.equal(tensor, merged.weights[name]) for name, tensor in together.weights.items())


def test_an_ensemble_merged_with_a_later_one_of_its_recipe_says_the_mean_of_both() -> None:
    first, later = fitted(), fitted(seed=1)
    both = Ensemble.merge([first, later.renumbered()])
    assert len(both.members) == 2 * len(first.members)
    expected = (first.average(told(first), OWNERS) + later.average(told(later), OWNERS)) / 2
    np.testing.assert_allclose(both.average(told(both), OWNERS), expected, atol=1e-5)


def test_another_seed_gives_other_members() -> None:
    assert not np.array_equal(told(fitted()), told(fitted(seed=1)))


def test_a_part_of_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"members \[0\] are not whole groups"):
        fitted(members=[0])


def test_what_is_saved_speaks_as_before(tmp_path: Path) -> None:
    ensemble = fitted(replace(QUICK, modality_dropout=ModalityDropout("one_of", {"video": 0.3})))
    ensemble.save(tmp_path)
    found = Ensemble.load(tmp_path)
    assert found.recipe == ensemble.recipe
    np.testing.assert_array_equal(told(found), told(ensemble))


def test_every_subset_of_modalities_speaks_and_the_absent_one_is_not_heard() -> None:
    ensemble, clips = fitted(), features()
    by_subset = subset_logits(ensemble, clips, OWNERS)
    assert list(by_subset) == ["A", "V", "AV"]
    garbled = replace(clips, values=dict(clips.values) | {"video": clips.values["video"] + 100})
    np.testing.assert_array_equal(by_subset["A"], subset_logits(ensemble, garbled, OWNERS)["A"])
    assert not np.array_equal(by_subset["AV"], subset_logits(ensemble, garbled, OWNERS)["AV"])


def test_consistency_lets_unlabelled_clips_teach() -> None:
    recipe, clips = replace(QUICK, consistency=1.0), features()
    read = bases([clips], 4, seed=0)
    columns = Columns.of(clips, read)
    with_pool = fit_members(recipe, read, columns, *lesson(), seed=0, unlabelled=columns)
    without = fit_members(recipe, read, columns, *lesson(), seed=0)
    assert not np.array_equal(told(with_pool), told(without))
    assert np.array_equal(told(without), told(fitted(replace(recipe, consistency=0.0))))


def test_columns_are_the_projected_rows_zero_where_absent() -> None:
    clips = features()
    clips.present[3, 0] = False
    clips.values["video"][3] = np.nan
    read = bases([clips], 4, seed=0)
    columns = Columns.of(clips, read)
    basis = read["video"]
    expected = (torch.from_numpy(clips.values["video"][5]) - basis.mean) * basis.inverse @ basis.axes
    torch.testing.assert_close(columns.values["video"][5], expected)
    assert not columns.values["video"][3].any()
    assert columns.only(["audio"]).present[:, 0].sum() == 0
    assert len(columns.rows(slice(0, 5)).and_then(columns)) == CLIPS + 5


def test_features_that_are_not_finite_are_named() -> None:
    clips = features()
    clips.values["audio"][7, 2] = np.inf
    with pytest.raises(Diverged, match="stream 'audio' cannot be learnt from"):
        bases([clips], 4, seed=0)


def test_a_fold_without_a_row_to_learn_from_is_refused() -> None:
    clips = features()
    read = bases([clips], 4, seed=0)
    targets, weights = lesson()
    weights[1] = 0
    with pytest.raises(ValueError, match="every fold needs a row"):
        fit_members(QUICK, read, Columns.of(clips, read), targets, weights, seed=0)
