"""Fusion training on stored features against the plain loop of MERTools: `OMP_NUM_THREADS=1 python -m benchmarks.fusion`.

Both learn 5,030 simulated clips of 1024 + 4096 + 768 features, 6 classes, in 5 folds. The plain loop is MERTools' own: its
attention model on raw features, one fold, Adam, L2 1e-5, batches of 32. Ours is the default recipe, all folds and seeds; reading
the features into principal components is counted in full.

    a class shifts 12 of 60 latent factors of decaying strength; features are random mixtures of them, and noise
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.rounds import experiment_of
from orchestrator.metrics import waf
from orchestrator.models.fusion import MerToolsAttention
from orchestrator.training.columns import Columns, bases
from orchestrator.training.ensemble import FusionRecipe, fit_members
from orchestrator.training.relevance import weighed
from orchestrator.vocabulary import Features

CLIPS, C, FOLDS = 5030, 6, 5
DIMS = {"audio": 1024, "text": 4096, "video": 768}


def simulated(
    clips: int, dims: Mapping[str, int], seed: int = 0, dtype: type[np.floating] = np.float32
) -> tuple[Features, NDArray]:
    """Features with signal, and the class of each clip."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(C, size=clips)
    values = {}
    for stream, width in dims.items():
        strength = np.linspace(1.0, 0.2, 60)[:, None]
        mixture = (strength * rng.normal(size=(60, width))).astype(np.float32)
        shift = np.zeros((C, 60), np.float32)
        shift[:, rng.permutation(60)[:12]] = 0.35 * rng.normal(size=(C, 12))
        stored = np.empty((clips, width), dtype)
        for first in range(0, clips, 4096):
            rows = slice(first, first + 4096)
            latent = shift[truth[rows]] + rng.normal(size=(len(truth[rows]), 60)).astype(np.float32)
            stored[rows] = latent @ mixture + rng.standard_normal((len(latent), width), np.float32)
        values[stream] = stored
    names = np.array([f"clip{index:07d}" for index in range(clips)])
    return Features(names, values, np.ones((clips, len(dims)), dtype=bool)), truth


def plain_loop(features: Features, truth: NDArray[np.int64], held: NDArray[np.bool_], epochs: int) -> list[tuple[float, float]]:
    """MERTools' training of one fold: (CPU-seconds spent training, validation WAF) after each epoch."""
    torch.manual_seed(0)
    model = MerToolsAttention().build({stream: rows.shape[1] for stream, rows in features.values.items()}, C, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    raw = {stream: torch.from_numpy(rows) for stream, rows in features.values.items()}
    label, known, out = torch.from_numpy(truth), torch.ones(len(truth), len(raw), dtype=torch.bool), torch.from_numpy(held)
    rng, spent, told = np.random.default_rng(0), 0.0, []
    for _ in range(epochs):
        started = time.process_time()
        model.train()
        for rows in torch.from_numpy(rng.permutation(np.flatnonzero(~held))).split(32):
            logits = model({stream: values[rows] for stream, values in raw.items()}, known[rows])[0]
            loss = torch.nn.functional.cross_entropy(logits, label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spent += time.process_time() - started
        model.eval()
        with torch.no_grad():
            said = model({stream: values[out] for stream, values in raw.items()}, known[out])[0].argmax(dim=1)
        told.append((spent, waf(truth[held], said.numpy())))
    return told


def ours(
    recipe: FusionRecipe, features: Features, truth: NDArray[np.int64], folds: NDArray[np.int64]
) -> tuple[float, float, float]:
    """CPU-seconds of reading, of fitting all members, and the out-of-fold WAF."""
    started = time.process_time()
    read = weighed(bases([features], recipe.components, 0), features, truth, C)
    columns = Columns.of(features, read)
    reading = time.process_time() - started
    targets = np.repeat(np.eye(C, dtype=np.float32)[truth][None], FOLDS, axis=0)
    weights = (np.arange(FOLDS)[:, None] != folds).astype(np.float32)
    started = time.process_time()
    ensemble = fit_members(recipe, read, columns, targets, weights, seed=0)
    fitting = time.process_time() - started
    return reading, fitting, waf(truth, ensemble.average(ensemble.logits(columns), folds).argmax(axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="of the plain loop")
    epochs: int = parser.parse_args().epochs
    torch.set_num_threads(1)
    features, truth = simulated(CLIPS, DIMS)
    folds = np.arange(CLIPS) % FOLDS
    theirs = plain_loop(features, truth, folds == 0, epochs)
    per_epoch = theirs[-1][0] / epochs
    goal = max(score for _, score in theirs)
    to_goal = next(spent for spent, score in theirs if score == goal)
    print(f"plain loop  {per_epoch:.2f} CPU-s an epoch and fold; best WAF {goal:.3f} after {to_goal:.1f} CPU-s, one fold")
    recipe = experiment_of([]).fusion
    print(
        f"{'ours, epochs':14}{'read':>7}{'fit':>7}{'an epoch+fold':>15}{'WAF':>8}{'all, a fold':>13}  ratios: epoch, to the score"
    )
    for count in (1, 2, 4, 8):
        reading, fitting, score = ours(replace(recipe, epochs=count, min_steps=1), features, truth, folds)
        epoch, fold = fitting / (count * FOLDS * recipe.seeds), (reading + fitting) / FOLDS
        ratios = f"{epoch / per_epoch:.3f}" + (f"  {fold / to_goal:.3f}" if score >= goal else "")
        print(f"{count:<14}{reading:7.1f}{fitting:7.1f}{epoch:15.3f}{score:8.3f}{fold:13.2f}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
