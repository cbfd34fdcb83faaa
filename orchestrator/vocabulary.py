"""The nouns of the project: frozen records that cross the borders between packages.

NumPy only, so that a decode child, a selection policy and a report can share them without loading torch.
Dimension letters, the same everywhere:

    N clips   K accepted   B batch   T frames   H W pixels   S samples   C classes   D width   M streams

A *stream* is one column of features. Its name is its modality, or `modality.variant` when a modality has several
(`audio`, `audio.whisper`); `modality_of` reads the first part. Modality dropout, presence and the seven-subset report
speak of modalities; feature tables and fusion heads of streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]
Names = NDArray[np.str_]

MODALITIES = ("audio", "video", "text")


def modality_of(stream: str) -> str:
    """`audio.whisper` -> `audio`. Raises ValueError for a stream of no known modality."""
    modality = stream.partition(".")[0]
    if modality not in MODALITIES:
        raise ValueError(f"stream {stream!r} must be named after its modality, one of {MODALITIES}, as in 'audio.whisper'")
    return modality


def subset_name(modalities: Sequence[str]) -> str:
    """Short name of a set of modalities, as papers write it: ("audio", "text") -> "AT"."""
    return "".join(modality[0].upper() for modality in MODALITIES if modality in modalities)


def modality_subsets(modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every non-empty subset, smallest first: for three modalities A, V, T, AV, AT, VT, AVT."""
    ordered = [modality for modality in MODALITIES if modality in modalities]
    subsets = [subset for size in range(1, len(ordered) + 1) for subset in combinations(ordered, size)]
    return {subset_name(subset): subset for subset in subsets}


class Split(StrEnum):
    """Where a clip stands. The values are the words of the manifest."""

    LABELLED = "labeled"
    UNLABELLED = "unlabeled"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Emotions:
    """The closed label set. Order is identity: a label is an index into `names`.

    - `names`: C class names.
    - `prompt`: the sentence CLIP reads, with one `{}` for the class name.
    """

    names: tuple[str, ...]
    prompt: str = "a person who looks {}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # Hydra hands over lists
        if len(self.names) < 2 or len(set(self.names)) != len(self.names):
            raise ValueError(f"emotions.names needs at least two different names, got {list(self.names)}")
        if self.prompt.count("{}") != 1:
            raise ValueError(f"emotions.prompt needs exactly one {{}} for the class name, got {self.prompt!r}")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Label of a class name. Raises ValueError naming the known ones."""
        if name not in self.names:
            raise ValueError(f"unknown emotion {name!r}; known are {', '.join(self.names)}")
        return self.names.index(name)


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest, checked.

    - `path`: where the video lies, absolute.
    - `label`: in [0, C), or None when nobody labelled it.
    - `group`: the speaker; folds never split one. "" when unknown.
    - `transcript`: None if never transcribed, "" if nobody spoke.
    - `digest`: SHA-256 of the file's bytes, "" until `media.digests` has read them.
    - `hint`: what a language model remarked on the transcript (`encoders.hints`), None when nobody asked.
    """

    clip_id: str
    path: str
    split: Split
    label: int | None = None
    group: str = ""
    transcript: str | None = None
    digest: str = ""
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """One clip in memory, after decoding and before encoding.

    - `frames`: uint8 `(T, H, W, 3)`, RGB; `T == 0` when there is no picture.
    - `frame_times_s`: float32 `(T,)`, seconds from clip start, increasing.
    - `waveform`: float32 `(S,)`, mono, in [-1, 1]; `S == 0` when there is no sound.
    - `transcript`: None if never transcribed, "" if nobody spoke.
    - `digest`: SHA-256 of the file's bytes: which fold model may encode this clip hangs on it.
    - `flags`: what was odd but usable ("VFR", "ROTATED", "NO_AUDIO", ...).
    """

    clip_id: str
    frames: NDArray[np.uint8]
    frame_times_s: NDArray[np.float32]
    waveform: NDArray[np.float32]
    rate_hz: int
    transcript: str | None
    digest: str = ""
    flags: tuple[str, ...] = ()
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """What one encoder makes of B clips; absent rows are zeros.

    - `values`: float32 `(B, D)`.
    - `present`: bool `(B,)`, False when the clip lacks what the encoder reads.
    - `flags`: what was odd but usable, by clip id ("TEXT_TRUNCATED"); most clips have no entry.
    """

    stream: str
    clip_ids: tuple[str, ...]
    values: NDArray[np.float32]
    present: Bools
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.values.shape[0] == len(self.clip_ids) == self.present.shape[0]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A clip that cannot be used: a row with a reason, never a silent drop."""

    clip_id: str
    stage: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Features:
    """Stored features of N clips, joined by clip.

    - `values[stream]`: `(N, D_stream)`, float32 or float16.
    - `present`: bool `(N, M)`, one column a stream, in the order of `values`.
    """

    clip_ids: Names
    values: Mapping[str, Floats]
    present: Bools

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities there are, in the order of `MODALITIES`."""
        found = {modality_of(stream) for stream in self.values}
        return tuple(modality for modality in MODALITIES if modality in found)

    def rows(self, index: Ints | Bools) -> Features:
        """The chosen clips, in the order of `index`."""
        return Features(self.clip_ids[index], {name: v[index] for name, v in self.values.items()}, self.present[index])

    def only(self, modalities: Sequence[str]) -> Features:
        """The same clips as if the other modalities were missing: their presence is off."""
        keep = np.array([modality_of(stream) in modalities for stream in self.values])  # (M,)
        return replace(self, present=self.present & keep)


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Softmax over the last axis in float64, safe for large logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a teacher says of N clips.

    - `logits`: float32 `(N, C)`, mean over the ensemble; uncalibrated.
    - `scale`, `bias`: calibration, so that `probabilities = softmax(logits * scale + bias)`; scalars (1 / temperature
      and 0) or `(C,)` for vector scaling.
    - `teacher`: fingerprint of the model that spoke.
    - `votes`: int8 `(N, J)` or None: the class each of J voices names, -1 for a voice that cannot speak; `voices` names them
      ("A", "V", "T" for single modalities, "fold 0", an external teacher).
    - `uncertainty`: float32 `(N,)` or None: standard deviation of the winning class's probability over ensemble members.
    """

    clip_ids: Names
    logits: NDArray[np.float32]
    teacher: str
    scale: Floats = field(default_factory=lambda: np.ones(1, np.float32))
    bias: Floats = field(default_factory=lambda: np.zeros(1, np.float32))
    votes: NDArray[np.int8] | None = None
    voices: tuple[str, ...] = ()
    uncertainty: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated, `(N, C)`. Computed anew at each call: keep it in a variable."""
        return softmax(self.logits * self.scale + self.bias)

    def rows(self, index: Ints | Bools) -> Predictions:
        """What was said of the chosen clips, in the order of `index`."""
        votes = None if self.votes is None else self.votes[index]
        uncertainty = None if self.uncertainty is None else self.uncertainty[index]
        return replace(self, clip_ids=self.clip_ids[index], logits=self.logits[index], votes=votes, uncertainty=uncertainty)


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """Labels a teacher gives to K clips, sorted by clip id.

    - `targets`: float32 `(K, C)`, rows sum to 1; one-hot when hard.
    - `weights`: float32 `(K,)`, how much a clip counts in the student's loss.
    - `confidence`: float32 `(K,)`, the teacher's calibrated probability of the label.
    - `thresholds`: float32 `(C,)`, what each class had to reach in this round.
    - `folds`: int16 `(K,)`, the fold whose student learns from the row (a clip has a row for each); None: every student does.
    - `shift`: float32 `(C,)`, what the policy added to the teacher's bias before it chose; None when nothing.
    """

    clip_ids: Names
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    confidence: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    teacher: str
    round_index: int
    folds: NDArray[np.int16] | None = None
    shift: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The winning class of each clip, `(K,)`."""
        return np.asarray(self.targets.argmax(axis=1), dtype=np.int64)


class Verdict(StrEnum):
    """What the guard decided about a round."""

    PROMOTED = "promoted"  # proven better: the best model so far; it teaches the next round
    KEPT = "kept"  # not proven better, no harm seen: it teaches the next round, the best model stays
    REJECTED = "rejected"  # worse beyond noise, collapsed, drifted or churned: rolled back


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What one round did, judged on out-of-fold human labels only.

    - `teacher`: fingerprint of the model whose labels it learnt from; None in round 0. `student`: of the model it made.
    - `accepted_per_class`, `threshold_per_class`: `(C,)`.
    - `val_f1`: weighted F1 (WAF), `val_uar`: unweighted recall, `val_accuracy`, `val_ece`: after calibration.
    - `pool_precision`: share of accepted labels that are true, None where truth is unknown.
    - `reason`: one sentence for the reader of the report.
    """

    index: int
    teacher: str | None
    student: str
    accepted_per_class: tuple[int, ...]
    threshold_per_class: tuple[float, ...]
    val_f1: float
    val_uar: float
    val_accuracy: float
    val_ece: float
    verdict: Verdict
    reason: str
    seconds: float
    seed: int
    pool_precision: float | None = None
