"""What a round does on a cluster: fit a fusion ensemble on human and pseudo-labels, let it speak.

Features travel once through the object store; every process of a node reads the same copy.

    StepsRecipe (refs, recipe, seed)  ──►  FusionSteps.fit(index, labels) ─► models/<fp>/   found again when finished
                                           FusionSteps.predict(fp) ─► Scored(out-of-fold labelled, pool)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import ray
from numpy.typing import NDArray

from orchestrator.cluster.fit import FusionTask, fit_fusion
from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.mixing import Mixing
from orchestrator.seams import Json
from orchestrator.settings import ClusterSettings
from orchestrator.stores.artifacts import ArtifactStore
from orchestrator.stores.fingerprint import array_digest, fingerprint
from orchestrator.training.ensemble import Ensemble, FusionRecipe, subset_logits
from orchestrator.vocabulary import Features, Floats, Predictions, PseudoLabels, softmax, subset_name

KIND = "fusion"  # the folder of the artifact store that holds fusion ensembles


@dataclass(frozen=True, slots=True)
class StepsRecipe:
    """All a controller needs to make its steps, small enough to send.

    - `labelled`, `pool`: object references of `Features`, clips sorted by id.
    - `truth` `(N,)`: human labels; `folds` `(N,)`: frozen folds of the labelled clips.
    - `upstream`: identity of the features, the clips, their labels and folds.
    """

    labelled: ray.ObjectRef
    pool: ray.ObjectRef
    truth: NDArray[np.int64]
    folds: NDArray[np.int64]
    classes: int
    fusion: FusionRecipe
    mixing: Mixing
    seed: int
    upstream: str
    store: Path
    cluster: ClusterSettings


class FusionSteps:
    """`RoundSteps` on stored features."""

    def __init__(self, recipe: StepsRecipe) -> None:
        self._recipe = recipe
        self._labelled, self._pool = ray.get([recipe.labelled, recipe.pool])
        self._models = ArtifactStore(recipe.store)
        self.truth = recipe.truth
        self.activity = "waiting"

    def fit(self, index: int, labels: PseudoLabels | None) -> str:
        """Fit the student of a round, unless it is found finished."""
        recipe = self._recipe
        mixed = recipe.mixing.mix(self._labelled.clip_ids, recipe.truth, recipe.folds, recipe.classes, labels)
        lesson = array_digest(mixed.clip_ids, mixed.targets, mixed.weights)
        student = fingerprint(KIND, recipe.fusion.identity(), recipe.upstream, recipe.seed, lesson)
        if self._models.find(KIND, student) is None:
            self.activity = f"round {index}: fitting on {len(mixed)} clips"
            taught = mixed.clip_ids[len(self._labelled) :]
            features = stack(self._labelled, chosen(self._pool, taught))
            task = FusionTask(recipe.fusion, features, mixed.targets, mixed.weights, recipe.seed)
            about: dict[str, Json] = {"upstream": recipe.upstream, "seed": recipe.seed, "round": index, "lesson": lesson}
            with self._models.write(KIND, student, about) as directory, TemporaryDirectory(dir=recipe.store) as scratch:
                fit_fusion(task, Path(scratch), recipe.cluster, name=f"fusion-{student}").save(directory)
        return student

    def predict(self, student: str) -> Scored:
        """Uncalibrated logits: out of fold for labelled clips, once for each fold's student for the pool."""
        self.activity = f"predicting {len(self._pool)} clips"
        directory = self._models.find(KIND, student)
        assert directory is not None, f"student {student} was fitted before it is asked"
        ensemble = Ensemble.load(directory)
        unseen = np.full(len(self._pool), -1)
        students = range(int(self._recipe.folds.max()) + 1)
        return Scored(
            labelled=predict(ensemble, self._labelled, self._recipe.folds, student),
            pool=tuple(predict(ensemble.of_fold(fold), self._pool, unseen, student) for fold in students),
        )


def predict(ensemble: Ensemble, features: Features, folds: NDArray[np.int64], teacher: str) -> Predictions:
    """What an ensemble says of clips, with the vote of each modality alone and the members' disagreement.

    `folds` `(N,)`: a clip of fold f >= 0 is judged by the members that never saw it, a clip of fold -1 by all.
    """
    logits = ensemble.logits(features)  # (J, N, C)
    mean = ensemble.average(logits, folds)
    single = {subset_name([modality]): (modality,) for modality in features.modalities}
    votes = [_vote(ensemble, features.only(modalities), folds) for modalities in single.values()]
    return Predictions(
        clip_ids=features.clip_ids,
        logits=mean,
        teacher=teacher,
        votes=np.stack(votes, axis=1),
        voices=tuple(single),
        uncertainty=_disagreement(logits, mean),
    )


def subset_labels(ensemble: Ensemble, features: Features, folds: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Labels `(N,)` by modality subset: A, V, T, AV, AT, VT, AVT."""
    return {name: logits.argmax(axis=1) for name, logits in subset_logits(ensemble, features, folds).items()}


def _vote(ensemble: Ensemble, features: Features, folds: NDArray[np.int64]) -> NDArray[np.int8]:
    labels = ensemble.average(ensemble.logits(features), folds).argmax(axis=1)
    return np.where(features.present.any(axis=1), labels, -1).astype(np.int8)


def _disagreement(logits: Floats, mean: Floats) -> NDArray[np.float32]:
    """Standard deviation over members of the winning class's probability, `(N,)`."""
    winner = mean.argmax(axis=1)
    told = np.stack([softmax(member)[np.arange(len(winner)), winner] for member in logits])  # (J, N)
    return np.asarray(told.std(axis=0), dtype=np.float32)


def chosen(features: Features, clip_ids: NDArray[np.str_]) -> Features:
    """The named clips; `features` must be sorted by clip id."""
    return features.rows(np.searchsorted(features.clip_ids, clip_ids))


def stack(first: Features, second: Features) -> Features:
    """Two sets of clips with the same streams, one after the other."""
    return Features(
        np.concatenate([first.clip_ids, second.clip_ids]),
        {stream: np.concatenate([first.values[stream], second.values[stream]]) for stream in first.values},
        np.concatenate([first.present, second.present]),
    )
