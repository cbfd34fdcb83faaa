"""How loud each stream is read: by the evidence that it tells of the label.

With few labels a stream that says nothing still fits them, and every head that listens pays for it: on real clips three streams
read alike lost to one of them. So the columns of a stream are scaled by how far its weights should stray from zero, found by
maximising the evidence of a linear model of all streams together (MacKay 1992, "Bayesian Interpolation", section 3; one
hyperparameter a stream as in automatic relevance determination):

    Y = sum_s X_s W_s + noise,  W_s ~ N(0, variance_s),  noise ~ N(0, noise)      Y: classes as centred one-hot rows

It costs one (D', D') inverse a step, whatever the number of clips, and takes a handful of numbers from the labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.training.columns import Basis, Columns
from orchestrator.vocabulary import Features

STEPS = 60  # of MacKay's fixed point; streams that tell something have settled after 20
FAINTEST = 0.05  # a stream that told these labels nothing keeps a whisper: alone, it is still heard
QUIETEST = 1e-6  # variance of the noise, where the labels leave none


def weighed(bases: Mapping[str, Basis], labelled: Features, truth: NDArray[np.int64], classes: int) -> dict[str, Basis]:
    """The bases, each stream read as loudly as it tells of the label; arguments as in `loudness`."""
    gains = loudness(Columns.of(labelled, bases), truth, classes)
    return {stream: basis.scaled(gains[stream]) for stream, basis in bases.items()}


def loudness(columns: Columns, truth: NDArray[np.int64], classes: int) -> dict[str, float]:
    """Gain in [`FAINTEST`, 1] of each stream, 1 for the one that tells most; all 1 when none tells anything.

    `columns`: N clips with human labels `truth` `(N,)`. A clip without a stream counts as one of which it says nothing.
    """
    widths = [rows.shape[1] for rows in columns.values.values()]
    sizes = torch.tensor(widths)
    rows = torch.cat([rows.double() / rows.shape[1] ** 0.5 for rows in columns.values.values()], dim=1)  # (N, D)
    wanted = torch.nn.functional.one_hot(torch.from_numpy(truth), classes).double()
    wanted = wanted - wanted.mean(dim=0)
    gram, told, power = rows.T @ rows, rows.T @ wanted, float(wanted.square().sum())
    variance, noise = torch.full((len(widths),), 1 / classes, dtype=torch.float64), max(power / wanted.numel(), QUIETEST)
    for _ in range(STEPS):
        covariance = torch.linalg.inv(gram / noise + torch.diag((1 / variance).repeat_interleave(sizes)))
        weights = covariance @ told / noise  # (D, C)
        spread = torch.stack([part.sum() for part in covariance.diagonal().split(widths)])
        decided = (sizes - spread / variance).clamp(min=1e-9)  # parameters the labels decide, a class
        strength = torch.stack([part.square().sum() for part in weights.split(widths)])
        variance = (strength / (classes * decided)).clamp(min=1e-9)
        missed = power - 2 * float((weights * told).sum()) + float((weights * (gram @ weights)).sum())
        noise = max(missed / (classes * max(len(truth) - float(decided.sum()), 1.0)), QUIETEST)
    gains = (variance / variance.max()).sqrt().clamp(min=FAINTEST)
    return dict(zip(columns.values, gains.tolist(), strict=True))
