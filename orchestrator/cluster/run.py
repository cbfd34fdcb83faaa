"""The main job after the features stand: walk the rounds.

    Corpus ─► shared memory ─► rounds (controller actor) ─► ledger, fitted ensembles

`Run` is a run's place on disk: `<store>/runs/<name>-<fingerprint>/`. The fingerprint covers every setting that can change a
result, so the same command finds the same place and goes on there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from orchestrator.cluster.controller import found_rounds, walk_rounds
from orchestrator.cluster.corpus import Corpus, pool_truth
from orchestrator.cluster.ledger import RoundLedger
from orchestrator.cluster.steps import KIND, StepsRecipe
from orchestrator.errors import InputError
from orchestrator.rounds.consensus import FirstFrom
from orchestrator.seams import Json, SelectionPolicy
from orchestrator.settings import Experiment
from orchestrator.stores.artifacts import ArtifactStore
from orchestrator.stores.fingerprint import array_digest, fingerprint, identity_of
from orchestrator.training.ensemble import Ensemble
from orchestrator.vocabulary import RoundRecord, Split


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run's own files rest, and the name its results go by."""

    name: str
    directory: Path

    @classmethod
    def of(cls, experiment: Experiment, corpus: Corpus) -> Run:
        """The place of an experiment on a corpus."""
        rounds = identity_of(replace(experiment.rounds, rounds=0, patience=1))  # more rounds later go on from these
        parts = [identity_of(part) for part in (experiment.fusion, experiment.selection, experiment.mixing)]
        word: Json = None
        if experiment.teacher is not None and (said := corpus.external) is not None:
            word = [experiment.teacher.votes, experiment.teacher.labels, array_digest(said.clip_ids, said.logits)]
        key = fingerprint("run", corpus.identity, experiment.seed, rounds, *parts, word)
        name = f"{experiment.name}-{key}"
        return cls(name, experiment.store / "runs" / name)

    @property
    def ledger(self) -> RoundLedger:
        return RoundLedger(self.directory)


def steps_recipe(experiment: Experiment, corpus: Corpus, shared: StepsRecipe | None = None) -> StepsRecipe:
    """Put the features into shared memory, unless those of `shared` are meant; controllers and trials read them there."""
    return StepsRecipe(
        labelled=shared.labelled if shared else ray.put(corpus.of(Split.LABELLED)),
        pool=shared.pool if shared else ray.put(corpus.of(Split.UNLABELLED)),
        truth=corpus.truth,
        folds=corpus.folds,
        classes=len(experiment.emotions),
        fusion=experiment.fusion,
        mixing=experiment.mixing,
        seed=experiment.seed,
        upstream=corpus.identity,
        store=experiment.store,
        cluster=experiment.cluster,
        witness=corpus.external if experiment.teacher and experiment.teacher.votes else None,
    )


def policy_of(experiment: Experiment, corpus: Corpus) -> SelectionPolicy:
    """The experiment's policy; with an external teacher as label source, its answers are what round 1 learns."""
    if experiment.teacher is None or not experiment.teacher.labels or corpus.external is None:
        return experiment.selection
    return FirstFrom(experiment.selection, corpus.external)


def self_train(experiment: Experiment, corpus: Corpus, run: Run) -> Iterator[RoundRecord]:
    """The rounds of a run, each as soon as it is finished; finished ones are read, and said so."""
    if found := found_rounds(run.ledger, experiment.rounds):
        print(f"resuming: round {found[-1]} of {experiment.rounds.rounds} found", flush=True)
    pool = [corpus.clips[i] for i in corpus.indices(Split.UNLABELLED)]
    yield from walk_rounds(
        steps_recipe(experiment, corpus),
        experiment.rounds,
        policy_of(experiment, corpus),
        run.ledger,
        pool_truth(experiment, pool),
    )


def load_student(store: Path, student: str) -> Ensemble:
    """A fitted ensemble by its fingerprint."""
    directory = ArtifactStore(store).find(KIND, student)
    if directory is None:
        raise InputError(f"no fitted ensemble {student} in {store}: run jobs.self_train with the same settings first")
    return Ensemble.load(directory)
