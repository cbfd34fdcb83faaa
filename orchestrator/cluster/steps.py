"""What a round does on a cluster: fit a fusion ensemble on human and pseudo-labels, let it speak.

Features travel once through the object store; every process of a node reads the same copy. The steps read them once, into the
principal components that all rounds work on.

    StepsRecipe (refs, recipe, seed)  ──►  FusionSteps.fit(index, labels) ─► models/<fp>/   found again when finished
                                           FusionSteps.predict(fp) ─► Scored(out-of-fold labelled, pool)

A student speaks together with the members of round 0, which no pseudo-label has touched. Where the pool misleads (an unknown
class, other class shares) that holds it back: on `ravdess_av`, development actors, students alone lost up to 9 points against
round 0, anchored ones at most 3; where the pool helps, it costs a point of the gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from orchestrator.cluster.fit import FusionTask, fit_fusion
from orchestrator.rounds.consensus import with_voice
from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.mixing import Mixing
from orchestrator.seams import Json
from orchestrator.settings import ClusterSettings
from orchestrator.stores.artifacts import ArtifactStore
from orchestrator.stores.fingerprint import array_digest, fingerprint
from orchestrator.training.columns import Columns, bases
from orchestrator.training.ensemble import Ensemble, FusionRecipe, subset_logits
from orchestrator.training.relevance import weighed
from orchestrator.vocabulary import Features, Floats, Names, Predictions, PseudoLabels, softmax, subset_name

KIND = "fusion"  # the folder of the artifact store that holds fusion ensembles


@dataclass(frozen=True, slots=True)
class StepsRecipe:
    """All a controller needs to make its steps, small enough to send.

    - `labelled`, `pool`: object references of `Features`, clips sorted by id; or the features, where nothing has to travel.
    - `truth` `(N,)`: human labels; `folds` `(N,)`: frozen folds of the labelled clips.
    - `upstream`: identity of the features, the clips, their labels and folds.
    - `witness`: what an external teacher says of the clips; it joins their votes.
    """

    labelled: ray.ObjectRef | Features
    pool: ray.ObjectRef | Features
    truth: NDArray[np.int64]
    folds: NDArray[np.int64]
    classes: int
    fusion: FusionRecipe
    mixing: Mixing
    seed: int
    upstream: str
    store: Path
    cluster: ClusterSettings
    witness: Predictions | None = None


class FusionSteps:
    """`RoundSteps` on stored features."""

    def __init__(self, recipe: StepsRecipe) -> None:
        self._recipe = recipe
        labelled, pool = (each if isinstance(each, Features) else ray.get(each) for each in (recipe.labelled, recipe.pool))
        self._labelled_ids, self._pool_ids = labelled.clip_ids, pool.clip_ids
        self._bases = bases([labelled, pool], recipe.fusion.components, recipe.seed)
        if recipe.fusion.relevance:
            self._bases = weighed(self._bases, labelled, recipe.truth, recipe.classes)
        self._labelled, self._pool = Columns.of(labelled, self._bases), Columns.of(pool, self._bases)
        self._models = ArtifactStore(recipe.store)
        self.truth = recipe.truth
        self.activity = "waiting"

    def fit(self, index: int, labels: PseudoLabels | None) -> str:
        """Fit the student of a round, unless it is found finished."""
        recipe = self._recipe
        mixed = recipe.mixing.mix(self._labelled_ids, recipe.truth, recipe.folds, recipe.classes, labels)
        lesson = array_digest(mixed.clip_ids, mixed.targets, mixed.weights)
        student = fingerprint(KIND, recipe.fusion.identity(), recipe.upstream, recipe.seed, lesson)
        if self._models.find(KIND, student) is None:
            self.activity = f"round {index}: fitting on {len(mixed)} clips"
            taught = np.searchsorted(self._pool_ids, mixed.clip_ids[len(self._labelled_ids) :])
            rows = self._labelled.and_then(self._pool.rows(torch.from_numpy(taught)))
            unlabelled = self._pool if labels is not None and recipe.fusion.consistency and len(self._pool) else None
            task = FusionTask(recipe.fusion, self._bases, rows, mixed.targets, mixed.weights, recipe.seed, unlabelled)
            about: dict[str, Json] = {"upstream": recipe.upstream, "seed": recipe.seed, "round": index, "lesson": lesson}
            with self._models.write(KIND, student, about) as directory, TemporaryDirectory(dir=recipe.store) as scratch:
                fitted = fit_fusion(task, Path(scratch), recipe.cluster, name=f"fusion-{student}")
                anchored = fitted if labels is None else Ensemble.merge([self._load(self.fit(0, None)), fitted.renumbered()])
                anchored.save(directory)
        return student

    def _load(self, student: str) -> Ensemble:
        directory = self._models.find(KIND, student)
        assert directory is not None, f"student {student} was fitted before it is asked"
        return Ensemble.load(directory)

    def predict(self, student: str) -> Scored:
        """Uncalibrated logits: out of fold for labelled clips, once for each fold's student for the pool."""
        self.activity = f"predicting {len(self._pool)} clips"
        ensemble = self._load(student)
        unseen = np.full(len(self._pool), -1)
        students = range(int(self._recipe.folds.max()) + 1)
        return Scored(
            labelled=self._joined(_told(ensemble, self._labelled_ids, self._labelled, self._recipe.folds, student)),
            pool=tuple(
                self._joined(_told(ensemble.of_fold(fold), self._pool_ids, self._pool, unseen, student)) for fold in students
            ),
        )

    def _joined(self, told: Predictions) -> Predictions:
        witness = self._recipe.witness
        return told if witness is None else with_voice(told, witness.teacher, witness)


def predict(ensemble: Ensemble, features: Features, folds: NDArray[np.int64], teacher: str) -> Predictions:
    """What an ensemble says of clips, with the vote of each modality alone and the members' disagreement.

    `folds` `(N,)`: a clip of fold f >= 0 is judged by the members that never saw it, a clip of fold -1 by all.
    """
    return _told(ensemble, features.clip_ids, ensemble.read(features), folds, teacher)


def _told(ensemble: Ensemble, clip_ids: Names, columns: Columns, folds: NDArray[np.int64], teacher: str) -> Predictions:
    logits = ensemble.logits(columns)  # (J, N, C)
    mean = ensemble.average(logits, folds)
    single = {subset_name([modality]): (modality,) for modality in columns.modalities}
    votes = [_vote(ensemble, columns.only(modalities), folds) for modalities in single.values()]
    return Predictions(
        clip_ids=clip_ids,
        logits=mean,
        teacher=teacher,
        votes=np.stack(votes, axis=1),
        voices=tuple(single),
        uncertainty=_disagreement(logits, mean),
    )


def subset_labels(ensemble: Ensemble, features: Features, folds: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Labels `(N,)` by modality subset: A, V, T, AV, AT, VT, AVT."""
    return {name: logits.argmax(axis=1) for name, logits in subset_logits(ensemble, features, folds).items()}


def _vote(ensemble: Ensemble, columns: Columns, folds: NDArray[np.int64]) -> NDArray[np.int8]:
    labels = ensemble.average(ensemble.logits(columns), folds).argmax(axis=1)
    return np.where(columns.present.any(dim=1).numpy(), labels, -1).astype(np.int8)


def _disagreement(logits: Floats, mean: Floats) -> NDArray[np.float32]:
    """Standard deviation over members of the winning class's probability, `(N,)`."""
    winner = mean.argmax(axis=1)
    told = np.stack([softmax(member)[np.arange(len(winner)), winner] for member in logits])  # (J, N)
    return np.asarray(told.std(axis=0), dtype=np.float32)
