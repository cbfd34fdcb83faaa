"""Fits that spread over workers, and what a round's steps say, on a real cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from orchestrator.cluster.steps import FusionSteps, StepsRecipe
from orchestrator.errors import Diverged
from orchestrator.models.fusion import AttentionFusion
from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.mixing import Mixing
from orchestrator.rounds.selection import Cbst, Growing
from orchestrator.rounds.self_training import label_pool
from orchestrator.settings import ClusterSettings
from orchestrator.training.ensemble import FusionRecipe
from orchestrator.vocabulary import Features, PseudoLabels
from tests.cluster.killing import FITTER, killing

pytestmark = pytest.mark.cluster
LABELLED, POOL, C = 30, 60, 3
TRUTH = np.arange(LABELLED) % C


def recipe_in(store: Path, workers: int, **fusion: float) -> StepsRecipe:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, C, 8))
    truth = np.arange(LABELLED + POOL) % C
    values = {
        stream: (centres[m][truth] + 0.7 * rng.normal(size=(len(truth), 8))).astype(np.float16)
        for m, stream in enumerate(("video", "audio"))
    }
    clips = Features(np.array([f"clip{i:03d}" for i in range(len(truth))]), values, np.ones((len(truth), 2), dtype=bool))
    quick = FusionRecipe(head=AttentionFusion(width=8), seeds=2, components=4, epochs=1, min_steps=30)
    return StepsRecipe(
        labelled=ray.put(clips.rows(np.arange(LABELLED))),
        pool=ray.put(clips.rows(np.arange(LABELLED, len(truth)))),
        truth=TRUTH,
        folds=(np.arange(LABELLED) // C) % 2,
        classes=C,
        fusion=replace(quick, **fusion),
        mixing=Mixing(),
        seed=0,
        upstream="simulated",
        store=store,
        cluster=ClusterSettings(fit_workers=workers),
    )


def test_one_worker_and_four_give_the_pseudo_labels_of_none(cluster: None, tmp_path: Path) -> None:
    told: list[tuple[PseudoLabels, Scored]] = []
    for workers in (0, 1, 4):
        steps = FusionSteps(recipe_in(tmp_path / str(workers), workers, seeds=4))  # a group of members for each of four
        scored = steps.predict(steps.fit(0, None))
        told.append((label_pool(scored, Cbst(Growing(0.5)), TRUTH, 1), scored))
    for labels, scored in told[1:]:
        for name in ("clip_ids", "targets", "weights", "confidence", "folds"):
            np.testing.assert_array_equal(getattr(labels, name), getattr(told[0][0], name))
        np.testing.assert_array_equal(scored.labelled.logits, told[0][1].labelled.logits)
        for pool, alone in zip(scored.pool, told[0][1].pool, strict=True):
            np.testing.assert_array_equal(pool.logits, alone.logits)


def test_what_no_retry_can_mend_ends_a_fit_on_workers_at_once_in_its_own_words(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"lower fusion\.lr \(now 1e\+30\)"):
        FusionSteps(recipe_in(tmp_path, 1, lr=1e30)).fit(0, None)


@pytest.mark.chaos
def test_killed_fit_workers_are_replaced_and_change_nothing(cluster: None, tmp_path: Path) -> None:
    long = {"seeds": 4, "min_steps": 8000, "max_steps": 8000}
    alone, hunted = (FusionSteps(recipe_in(tmp_path / str(workers), workers, **long)) for workers in (0, 1))
    expected = alone.predict(alone.fit(0, None))
    with killing([FITTER] * 2, pause_s=15.0) as killed:  # one while it starts, one while it fits
        scored = hunted.predict(hunted.fit(0, None))
    assert killed == [FITTER] * 2
    np.testing.assert_array_equal(scored.labelled.logits, expected.labelled.logits)


def test_the_pool_teaches_by_consistency_from_round_1_on_and_never_the_supervised_model(cluster: None, tmp_path: Path) -> None:
    plain, consistent = (FusionSteps(recipe_in(tmp_path, 0, consistency=weight)) for weight in (0.0, 1.0))
    first, second = (steps.predict(steps.fit(0, None)) for steps in (plain, consistent))
    np.testing.assert_array_equal(first.labelled.logits, second.labelled.logits)
    labels = label_pool(first, Cbst(Growing(0.5)), TRUTH, 1)
    first, second = (steps.predict(steps.fit(1, labels)) for steps in (plain, consistent))
    assert not np.array_equal(first.labelled.logits, second.labelled.logits)
    assert (second.labelled.logits.argmax(axis=1) == TRUTH).mean() > 0.8


def test_a_few_loudnesses_taken_from_all_labels_do_not_flatter_the_judge(cluster: None, tmp_path: Path) -> None:
    right = []
    for seed in range(6):
        given = np.random.default_rng(seed).permutation(TRUTH)  # labels that mean nothing
        recipe = replace(recipe_in(tmp_path / str(seed), 0), truth=given)
        steps = FusionSteps(recipe)
        right.append((steps.predict(steps.fit(0, None)).labelled.logits.argmax(axis=1) == given).mean())
    assert np.mean(right) < 1 / C + 0.08
