"""Everything that precedes the rounds: clips, frozen folds, tuned prompts, stored features.

    manifest ─► clips with digests ─► [hints] ─► folds frozen on human labels ─► [prompts tuned per fold] ─► features

What is finished is found again by its fingerprint; what is missing is made.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.cluster.extract import extract, feature_key, read_features, stream_fingerprint
from orchestrator.cluster.tune import tuned_clip
from orchestrator.encoders.emovclip import refuse_in_fold
from orchestrator.errors import InputError, ManifestError, TooManyRejected
from orchestrator.media.digests import content_problems, with_digests
from orchestrator.media.manifest import read_manifest
from orchestrator.media.toy import write_toy_corpus
from orchestrator.reports.console import show_rejected
from orchestrator.reports.progress import progress
from orchestrator.rounds.folds import freeze_folds
from orchestrator.rounds.speakers import Usual, within_speakers
from orchestrator.seams import EncoderRecipe
from orchestrator.settings import Experiment
from orchestrator.stores.features import FeatureStore
from orchestrator.stores.fingerprint import fingerprint
from orchestrator.vocabulary import Clip, Emotions, Features, Predictions, Rejected, Split


@dataclass(frozen=True, slots=True)
class Corpus:
    """Usable clips, sorted by id, with their features in the same order.

    - `folds` `(N_labelled,)`: frozen, in the order of `indices(Split.LABELLED)`.
    - `recipes`: encoders of the features, tuned ones included.
    - `usual`: what features that are standardised within speakers are compared with; None when they are as encoded.
    - `external`: what the external teacher says of labelled and unlabelled clips; `unanswered`: those it said nothing usable of.
    - `fingerprints`: of the stored streams. `identity`: of features, clips, labels and folds together.
    """

    clips: tuple[Clip, ...]
    features: Features
    folds: NDArray[np.int64]
    recipes: tuple[EncoderRecipe, ...]
    usual: Usual | None
    rejected: tuple[Rejected, ...]
    fingerprints: dict[str, str]
    identity: str
    external: Predictions | None = None
    unanswered: tuple[Rejected, ...] = ()

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Positions of a split's clips."""
        return np.array([i for i, clip in enumerate(self.clips) if clip.split is split], dtype=np.int64)

    @property
    def truth(self) -> NDArray[np.int64]:
        """Human labels of the labelled clips, `(N_labelled,)`."""
        return np.array([self.clips[i].label for i in self.indices(Split.LABELLED)], dtype=np.int64)

    def of(self, split: Split) -> Features:
        """Features of a split."""
        return self.features.rows(self.indices(split))


def read_clips(experiment: Experiment) -> tuple[Clip, ...]:
    """The manifest's clips, sorted by id, with the digests of their files; draws the toy corpus when it is asked for.

    Raises ManifestError, also when files that are equal contradict each other.
    """
    data = experiment.data
    clips = read_manifest(manifest_path(experiment), root=data.root, emotions=experiment.emotions)
    clips = with_digests(clips, cache=experiment.store / "digests")
    if problems := content_problems(clips):
        raise ManifestError(str(manifest_path(experiment)), problems)
    return tuple(sorted(clips, key=lambda clip: clip.clip_id))


def manifest_path(experiment: Experiment) -> Path:
    """The user's manifest, or that of the toy corpus, drawn on first use."""
    if experiment.data.manifest:
        return Path(experiment.data.manifest)
    return write_toy_corpus(experiment.store / "toy", clips=experiment.data.toy_clips, seed=experiment.seed)


def check_inputs(experiment: Experiment) -> tuple[Clip, ...]:
    """Find what is wrong with models and clips before a cluster is started for them. Raises ConfigError and InputErrors."""
    for recipe in experiment.encoders.values():
        stream_fingerprint(recipe, experiment.decode)
    clips = read_clips(experiment)
    frozen_folds(clips, experiment)
    return clips


def hinted(experiment: Experiment, clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """The clips with what a language model says of each transcript, or a multimodal one of each video; as they are when nobody is
    to be asked.

    Answers rest in the store. Says what they cost, and which clips got none and why. Raises ModelUnavailable.
    """
    if experiment.hints is None:
        return tuple(clips)
    from orchestrator.encoders.asking import HintSettings  # the client takes a second to import
    from orchestrator.encoders.hints import with_hints

    if not isinstance(experiment.hints, HintSettings):
        with progress(len(clips), "hints") as bar:
            answers = experiment.hints.answers(clips, on_answer=lambda: bar.advance(1))
        heard = tuple(replace(clip, hint=answers[clip.clip_id] or None) for clip in clips)
        spoken_of = sum(clip.hint is not None for clip in heard)
        print(f"hints: {experiment.hints.name} spoke of {spoken_of} of {len(heard)} clips", flush=True)
        return heard
    with progress(0, "hints") as bar:
        told, report = with_hints(
            clips, experiment.emotions, experiment.hints, experiment.store / "hints.sqlite", on_answer=bar.reach
        )
    asked = f"{report.requests} requests, {report.tokens} tokens" if report.requests else "nothing asked"
    print(f"hints: {sum(clip.hint is not None for clip in told)} of {len(told)} clips, {report.known} known; {asked}", flush=True)
    show_rejected(report.missing, "clips without a hint")
    return told


def gather(experiment: Experiment, clips: Sequence[Clip] = (), *, retry: bool = False) -> Corpus:
    """Make or find all that the rounds learn from; reads the clips unless given. Raises TooManyRejected and other InputErrors."""
    clips = hinted(experiment, clips or read_clips(experiment))
    folds = frozen_folds(clips, experiment)
    recipes = tuned_recipes(experiment, clips, folds)
    if not experiment.data.in_fold:
        refuse_in_fold(recipes)
    store = FeatureStore(experiment.feature_store)
    rejected = extract(clips, recipes, experiment.decode, files_root(experiment), store, experiment.cluster, retry=retry)
    check_rejected(clips, rejected, experiment.data.max_rejected, experiment.emotions)
    lost = {row.clip_id for row in rejected}
    usable = tuple(clip for clip in clips if clip.clip_id not in lost)
    kept = np.array([folds[clip.clip_id] for clip in usable if clip.split is Split.LABELLED], dtype=np.int64)
    features = read_features(usable, recipes, experiment.decode, store)
    external, unanswered = asked(experiment, usable)
    usual = Usual.of(features) if experiment.data.within_speakers and speakers_known(usable) else None
    return Corpus(
        clips=usable,
        features=features if usual is None else within_speakers(features, groups_of(usable), usual),
        folds=kept,
        recipes=recipes,
        usual=usual,
        rejected=tuple(rejected),
        fingerprints={recipe.stream: stream_fingerprint(recipe, experiment.decode) for recipe in recipes},
        identity=_identity(usable, kept, recipes, experiment, within=usual is not None),
        external=external,
        unanswered=unanswered,
    )


def asked(experiment: Experiment, clips: Sequence[Clip]) -> tuple[Predictions | None, tuple[Rejected, ...]]:
    """What the external teacher says of every clip but the test split's; nothing when there is none. Raises ModelUnavailable."""
    if experiment.teacher is None:
        return None, ()
    heard = [clip for clip in clips if clip.split is not Split.TEST]
    speaker = experiment.teacher.speaker
    with progress(len(heard), f"asking {speaker.name}") as bar:
        return speaker.ask(heard, on_answer=lambda: bar.advance(1))


def groups_of(clips: Sequence[Clip]) -> NDArray[np.str_]:
    """Speaker of each clip, `(N,)`, "" where unknown."""
    return np.array([clip.group for clip in clips], dtype=np.str_)


def speakers_known(clips: Sequence[Clip]) -> bool:
    """Whether every clip names its speaker; with some that do and some that do not, says why the speakers are not used."""
    unknown = sum(not clip.group for clip in clips)
    if 0 < unknown < len(clips):
        print(f"features stay as encoded: {unknown} of {len(clips)} clips name no speaker to standardise them within", flush=True)
    return unknown == 0


def frozen_folds(clips: Sequence[Clip], experiment: Experiment) -> dict[str, int]:
    """Fold of every labelled clip, by clip id; decided by labels and speakers alone, before anything is decoded."""
    labelled = [clip for clip in clips if clip.split is Split.LABELLED]
    if not labelled:
        raise InputError("the manifest has no labelled clip (split 'labeled'): round 0 learns from human labels")
    labels = np.array([clip.label for clip in labelled])
    if absent := [name for index, name in enumerate(experiment.emotions.names) if index not in labels]:
        raise InputError(f"no labelled clip of {', '.join(absent)}: label some, or leave the class out of emotions.names")
    groups = np.array([clip.group for clip in labelled], dtype=np.str_)
    folds = freeze_folds(labels, groups, experiment.data.folds, experiment.seed)
    return {clip.clip_id: int(fold) for clip, fold in zip(labelled, folds, strict=True)}


def tuned_recipes(experiment: Experiment, clips: Sequence[Clip], folds: Mapping[str, int]) -> tuple[EncoderRecipe, ...]:
    """The experiment's encoders; with prompts, the video encoder is the tuned one."""
    encoders = dict(experiment.encoders)
    if experiment.prompts is not None:
        encoders["video"] = tuned_clip(experiment, clips, folds, files_root(experiment))
    return tuple(encoders.values())


def files_root(experiment: Experiment) -> Path:
    """The folder no video may lie outside of."""
    return Path(experiment.data.root) if experiment.data.root else manifest_path(experiment).parent


def check_rejected(clips: Sequence[Clip], rejected: Sequence[Rejected], limit: float, emotions: Emotions) -> None:
    """Raises TooManyRejected when more than `limit` of all clips, or a fifth of a class's labelled ones, cannot be used."""
    codes = Counter(row.code for row in rejected)
    told = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    if len(rejected) > limit * len(clips):
        raise TooManyRejected(
            f"{len(rejected)} of {len(clips)} clips cannot be used ({told}), more than data.max_rejected={limit:g} allows. "
            f"First: {rejected[0].clip_id}: {rejected[0].detail}. Mend the files, raise the limit, or try them again "
            "with job.retry=true."
        )
    lost = {row.clip_id for row in rejected}
    for label, name in enumerate(emotions.names):
        mine = [clip for clip in clips if clip.split is Split.LABELLED and clip.label == label]
        gone = [clip for clip in mine if clip.clip_id in lost]
        if len(gone) > 0.2 * len(mine):
            raise TooManyRejected(
                f"class {name} loses {len(gone)} of its {len(mine)} labelled clips ({told}); first {gone[0].clip_id}. "
                "A class that loses more than a fifth would skew every score: mend or relabel them."
            )


def pool_truth(experiment: Experiment, pool: Sequence[Clip]) -> NDArray[np.int64] | None:
    """Known labels of pool clips, -1 where unknown, for the report alone; None when nothing is known."""
    path = Path(experiment.data.truth) if experiment.data.truth else None
    if path is None and experiment.data.toy_clips:
        path = manifest_path(experiment).with_name("truth.csv")
    if path is None:
        return None
    if not path.is_file():
        raise InputError(f"data.truth={path} does not exist; leave it out when nothing is known of the pool")
    with path.open(newline="", encoding="utf-8-sig") as lines:
        known = {row["clip_id"]: experiment.emotions.index(row["label"]) for row in csv.DictReader(lines)}
    return np.array([known.get(clip.clip_id, -1) for clip in pool], dtype=np.int64)


def _identity(
    clips: Sequence[Clip], folds: NDArray[np.int64], recipes: Sequence[EncoderRecipe], experiment: Experiment, *, within: bool
) -> str:
    streams = {recipe.stream: stream_fingerprint(recipe, experiment.decode) for recipe in recipes}
    rows = [[clip.clip_id, clip.split.value, *(feature_key(recipe, clip) for recipe in recipes)] for clip in clips]
    labels = [clip.label for clip in clips if clip.split is Split.LABELLED]
    groups = [clip.group for clip in clips] if within else None
    return fingerprint("corpus", streams, rows, labels, folds.tolist(), list(experiment.emotions.names), groups)
