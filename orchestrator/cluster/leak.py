"""How far a leak would flatter: the same fusion on video features by models that learnt the very labels they describe.

    labelled clips ─► all fold models ─► in-fold features ─► fusion of round 0 ─► WAF on labelled clips, WAF on unseen speakers
                                                                beside the same two of the run itself

In fold, the first number rises and the second does not: a reader of the report sees what out-of-fold features are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from orchestrator import metrics
from orchestrator.cluster.corpus import Corpus, files_root, groups_of
from orchestrator.cluster.extract import extract, read_features
from orchestrator.cluster.run import load_student, steps_recipe
from orchestrator.cluster.steps import FusionSteps, subset_labels
from orchestrator.cluster.tune import held_out_table, telling_frames
from orchestrator.encoders.emovclip import TunedClip
from orchestrator.reports.page import Table
from orchestrator.rounds.speakers import Usual, within_speakers
from orchestrator.settings import Experiment
from orchestrator.stores.features import FeatureStore
from orchestrator.stores.fingerprint import fingerprint
from orchestrator.vocabulary import Split

TITLE = "In-fold against out-of-fold video features"
NOTE = (
    "Round 0 twice. In fold, the video encoder learnt the label of the very clip it describes, so the feature gives the label "
    "away: what labelled clips gain by that and unseen speakers do not is the leak, the wider the more the prompts can learn by "
    "heart. This run uses features out of fold."
)


def prompt_tables(experiment: Experiment, corpus: Corpus) -> list[Table]:
    """What a report tells of tuned prompts; nothing when none were tuned. Reads test labels, as `leak_table` does."""
    tuned = [recipe for recipe in corpus.recipes if isinstance(recipe, TunedClip)]
    if not tuned:
        return []
    ids = {clip.digest: clip.clip_id for clip in corpus.clips}
    leak = leak_table(experiment, corpus)
    return [held_out_table(tuned[0]), *([leak] if leak else []), telling_frames(tuned[0], ids, experiment.emotions.names)]


def leak_table(experiment: Experiment, corpus: Corpus) -> Table | None:
    """Fused WAF of round 0 both ways, by modality subset with video; None when no encoder was tuned on the labels.

    Reads test labels: call it when the run has scored the test split.
    """
    if not any(isinstance(recipe, TunedClip) and not recipe.in_fold for recipe in corpus.recipes):
        return None
    rows = []
    for name, seen in {"out of fold": corpus, "in fold": in_fold(experiment, corpus)}.items():
        for subset, (labelled, test) in _round_0(experiment, seen).items():
            if "V" in subset:
                rows.append((name, subset, f"{labelled:.3f}", "" if test is None else f"{test:.3f}"))
    return Table(TITLE, ("video features", "modalities", "WAF on labelled clips", "WAF on unseen speakers (test)"), rows, NOTE)


def in_fold(experiment: Experiment, corpus: Corpus) -> Corpus:
    """The same corpus, its labelled clips encoded by all fold models; other clips always are."""
    leaky = [replace(recipe, in_fold=True) for recipe in corpus.recipes if isinstance(recipe, TunedClip)]
    index = corpus.indices(Split.LABELLED)
    clips = [corpus.clips[i] for i in index]
    store = FeatureStore(experiment.feature_store)
    extract(clips, leaky, experiment.decode, files_root(experiment), store, experiment.cluster)
    features = read_features(corpus.clips, corpus.recipes, experiment.decode, store)
    values = dict(features.values)
    for stream, rows in read_features(clips, leaky, experiment.decode, store).values.items():
        values[stream] = values[stream].copy()
        values[stream][index] = rows
    features = replace(features, values=values)
    if corpus.usual is not None:
        features = within_speakers(features, groups_of(corpus.clips), Usual.of(features))
    return replace(corpus, features=features, identity=fingerprint("in fold", corpus.identity))


def _round_0(experiment: Experiment, corpus: Corpus) -> Mapping[str, tuple[float, float | None]]:
    """WAF on labelled clips, by members that did not learn their labels, and on the test split, by modality subset."""
    steps = FusionSteps(steps_recipe(experiment, corpus))
    ensemble = load_student(experiment.store, steps.fit(0, None))
    judged = subset_labels(ensemble, corpus.of(Split.LABELLED), corpus.folds)
    index = corpus.indices(Split.TEST)
    index = index[[corpus.clips[i].label is not None for i in index]]
    truth = np.array([corpus.clips[i].label for i in index], dtype=np.int64)
    said: Mapping[str, NDArray[np.int64]] = {}
    if len(index):
        said = subset_labels(ensemble, corpus.features.rows(index), np.full(len(index), -1))
    return {
        subset: (metrics.waf(corpus.truth, labels), metrics.waf(truth, said[subset]) if said else None)
        for subset, labels in judged.items()
    }
