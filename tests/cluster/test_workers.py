"""Fits that spread over workers, and what a round's steps say, on a real cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray

from orchestrator.cluster.steps import FusionSteps, StepsRecipe
from orchestrator.models.fusion import AttentionFusion
from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.mixing import Mixing
from orchestrator.rounds.selection import Cbst, Growing
from orchestrator.rounds.self_training import label_pool
from orchestrator.settings import ClusterSettings
from orchestrator.training.ensemble import FusionRecipe
from orchestrator.vocabulary import Features, PseudoLabels

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


def two_rounds(recipe: StepsRecipe) -> tuple[PseudoLabels, Scored]:
    """What round 1 learns from, and what its student says."""
    steps = FusionSteps(recipe)
    labels = label_pool(steps.predict(steps.fit(0, None)), Cbst(Growing(0.5)), TRUTH, 1)
    return labels, steps.predict(steps.fit(1, labels))


def test_no_worker_and_two_give_the_same_pseudo_labels_and_the_same_student(cluster: None, tmp_path: Path) -> None:
    alone, spread = (two_rounds(recipe_in(tmp_path / str(workers), workers)) for workers in (0, 2))
    for name in ("clip_ids", "targets", "weights", "confidence", "folds"):
        np.testing.assert_array_equal(getattr(alone[0], name), getattr(spread[0], name))
    np.testing.assert_array_equal(alone[1].labelled.logits, spread[1].labelled.logits)
    np.testing.assert_array_equal(alone[1].pool[0].votes, spread[1].pool[0].votes)


def test_the_pool_teaches_by_consistency_inside_a_round(cluster: None, tmp_path: Path) -> None:
    plain, consistent = (FusionSteps(recipe_in(tmp_path, 0, consistency=weight)) for weight in (0.0, 1.0))
    first, second = (steps.predict(steps.fit(0, None)) for steps in (plain, consistent))
    assert not np.array_equal(first.labelled.logits, second.labelled.logits)
    assert (second.labelled.logits.argmax(axis=1) == TRUTH).mean() > 0.8
