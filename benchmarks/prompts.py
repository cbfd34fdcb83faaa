"""What prompt tuning is worth with few labels: schemes beside zero-shot and a linear probe, over seeds, on clips of one's own.

    python -m benchmarks.prompts --manifest clips.csv --model openclip-directory --variants default,full,k0 --seeds 5

Every seed draws its own folds (no speaker split) and its own first weights. "out of fold" judges each labelled clip by the model
that never saw it: choices are made there. "test" is the mean of the fold models on the test split; with `--whole` a model of all
labelled clips stands beside it. The deviation is over seeds; the labels alone leave one of about sqrt(WAF (1 - WAF) / clips).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from orchestrator import metrics
from orchestrator.encoders.clip import TINY, clip_tokenizer, load_clip
from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.media.manifest import read_manifest
from orchestrator.models.emovclip import EmoVclip
from orchestrator.rounds.folds import freeze_folds
from orchestrator.training.prompts import PromptRecipe, look, predict, tune
from orchestrator.training.trunk import CachedTokens, LiveTokens, Tokens
from orchestrator.vocabulary import Emotions, Split

NAMES = ("neutral", "angry", "happy", "sad", "worried", "surprise")
SCHEMES: Mapping[str, Mapping[str, object]] = {
    "default": {},
    "text": {"global_prompts": 0, "local_prompts": False, "time": False},
    "globals": {"local_prompts": False},
    "full": {"summary": "full"},
    "shared": {"summary": "shared"},
    "low_rank": {"summary": "low_rank"},
    "random_context": {"context": 8},
    "half": {"first_layer": None},  # half the depth
    "k0": {"first_layer": 0},
    "published": {"first_layer": 0, "summary": "full", "context": 8},
}


@dataclass(frozen=True, slots=True)
class Clips:
    """Decoded clips of a split: frames u8 `(T, H, W, 3)`, labels `(N,)`, speakers `(N,)`."""

    frames: list[NDArray[np.uint8]]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]

    @classmethod
    def read(cls, manifest: Path, split: Split, frames: int) -> Clips:
        clips = [c for c in read_manifest(manifest, emotions=Emotions(NAMES)) if c.split is split and c.label is not None]
        settings = DecodeSettings(frames=frames)
        labels = np.array([clip.label for clip in clips], dtype=np.int64)
        return cls([decode(clip, settings).frames for clip in clips], labels, np.array([clip.group for clip in clips]))


class Bench:
    """One frozen CLIP, labelled and test clips, and their tokens below each k."""

    def __init__(self, model: str, labelled: Clips, test: Clips) -> None:
        self.clip, self.tokenize = load_clip(model), clip_tokenizer(model)
        self.labelled, self.test = labelled, test
        self._stored: dict[object, CachedTokens] = {}

    def model(self, recipe: PromptRecipe, seed: int) -> EmoVclip:
        return EmoVclip(self.clip, self.tokenize, recipe.scheme, NAMES, seed=seed)

    def tokens(self, model: EmoVclip, clips: Clips, recipe: PromptRecipe, looks: int, seed: int) -> Tokens:
        """As `fold_tuning` serves them: cached above k = 0."""
        live = LiveTokens(model, clips.frames, recipe.augmentation, seed=seed)
        if not model.first_layer:
            return live
        key = (model.first_layer, id(clips), looks, seed if looks > 1 else 0)
        if key not in self._stored:
            rows = [[live([i], n - 1)[0][0].half().numpy() for i in range(len(clips.labels))] for n in range(looks)]
            self._stored[key] = CachedTokens(rows, torch.device("cpu"))
        return self._stored[key]

    def run(self, recipe: PromptRecipe, seed: int, *, whole: bool) -> dict[str, float]:
        """Scores of one seed, and CPU-seconds of tuning."""
        labels = self.labelled.labels
        folds = freeze_folds(labels, self.labelled.groups, 5, seed)
        judged, test, started = torch.zeros(len(labels), len(NAMES)), [], time.process_time()
        for fold in range(folds.max() + 1):
            model = self.model(recipe, seed)
            tokens = self.tokens(model, self.labelled, recipe, max(1, recipe.looks), seed)
            tune(recipe, model, tokens, labels, np.flatnonzero(folds != fold), seed=seed)
            held_out = np.flatnonzero(folds == fold)
            judged[held_out] = predict(model, tokens, held_out)
            test.append(self.on_test(model, recipe))
        told = {"seconds": time.process_time() - started}
        if whole:
            model = self.model(recipe, seed)
            tune(
                recipe,
                model,
                self.tokens(model, self.labelled, recipe, max(1, recipe.looks), seed),
                labels,
                np.arange(len(labels)),
                seed=seed,
            )
            told |= scores("whole", self.on_test(model, recipe), self.test.labels)
        return told | scores("out of fold", judged, labels) | scores("test", torch.stack(test).mean(dim=0), self.test.labels)

    def on_test(self, model: EmoVclip, recipe: PromptRecipe) -> Tensor:
        return predict(model, self.tokens(model, self.test, recipe, 1, 0), np.arange(len(self.test.labels)))

    def zero_shot(self) -> dict[str, float]:
        model = self.model(PromptRecipe(), 0)
        told: dict[str, float] = {"seconds": 0.0}
        for name, clips in {"out of fold": self.labelled, "test": self.test}.items():
            logits = predict(model, LiveTokens(model, clips.frames, None, seed=0), np.arange(len(clips.labels)), model.zero_shot)
            told |= scores(name, logits, clips.labels)
        return told

    def linear_probe(self, seed: int) -> dict[str, float]:
        """Logistic regression on the frozen embedding."""
        recipe = PromptRecipe()
        recipe = replace(
            recipe, scheme=replace(recipe.scheme, first_layer=len(self.model(recipe, 0).tower.transformer.resblocks))
        )
        model, rows = self.model(recipe, 0), []
        for clips in (self.labelled, self.test):
            seen = look(model, LiveTokens(model, clips.frames, None, seed=0), np.arange(len(clips.labels)))
            rows.append(torch.stack([s.embedding for s in seen]).numpy())
        labels, folds = self.labelled.labels, freeze_folds(self.labelled.labels, self.labelled.groups, 5, seed)
        judged = np.zeros((len(labels), len(NAMES)))
        for fold in range(folds.max() + 1):
            judged[folds == fold] = probe(rows[0][folds != fold], labels[folds != fold]).predict_log_proba(rows[0][folds == fold])
        test = probe(rows[0], labels).predict_log_proba(rows[1])
        return {
            "seconds": 0.0,
            **scores("out of fold", torch.from_numpy(judged), labels),
            **scores("test", torch.from_numpy(test), self.test.labels),
        }


def probe(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> LogisticRegression:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(rows, labels)


def scores(name: str, logits: Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
    loss = float(F.cross_entropy(logits.float(), torch.from_numpy(labels)))
    return {f"{name} WAF": metrics.waf(labels, logits.argmax(dim=1).numpy()), f"{name} loss": loss}


def recipe_of(name: str, layers: int, changes: Mapping[str, object]) -> PromptRecipe:
    default = PromptRecipe(**changes)  # type: ignore[arg-type]
    scheme = {key: layers // 2 if value is None else value for key, value in SCHEMES[name].items()}
    return replace(default, scheme=replace(default.scheme, **scheme))  # type: ignore[arg-type]


def show(name: str, runs: list[dict[str, float]]) -> None:
    cells = []
    for key in ("out of fold WAF", "out of fold loss", "test WAF", "test loss", "whole WAF", "seconds"):
        if key in runs[0]:
            values = np.array([run[key] for run in runs])
            cells.append(f"{key} {values.mean():.3f} +- {values.std():.3f}")
    print(f"{name:16}" + "   ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--variants", default="default", help=f"of {', '.join(SCHEMES)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="of PromptRecipe: anchor=1 learning_rate=1e-3")
    told = parser.parse_args()
    torch.set_num_threads(1)
    changes = {
        key: int(value) if value.isdigit() else float(value) for key, _, value in (each.partition("=") for each in told.set)
    }
    bench = Bench(told.model, *(Clips.read(told.manifest, split, told.frames) for split in (Split.LABELLED, Split.TEST)))
    show("zero-shot", [bench.zero_shot()])
    show("linear probe", [bench.linear_probe(seed) for seed in range(told.seeds)])
    layers = len(bench.model(PromptRecipe(), 0).tower.transformer.resblocks)
    for name in told.variants.split(","):
        recipe = recipe_of(name, layers, changes)
        show(name, [bench.run(recipe, seed, whole=told.whole) for seed in range(told.seeds)])


if __name__ == "__main__":
    main()
