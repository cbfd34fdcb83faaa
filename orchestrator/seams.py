"""The seams, on one page: where one part can be replaced by another that behaves the same.

A Protocol is earned by two implementations. A *recipe* is a frozen dataclass of settings: cheap to make, safe to send to a
worker, with an identity; the weights are loaded where they are used.

    EncoderRecipe.load() -> Encoder.encode(clips) -> Encoded
    Decoder.decode(clip) -> DecodedClip                       raises Undecodable
    FusionHead(features, present) -> logits                   a torch module
    SelectionPolicy.select(predictions, ...) -> PseudoLabels  pure NumPy
    Teacher.ask(clips) -> Predictions, Rejected ...           a multimodal LLM behind HTTP, a replayed file
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.vocabulary import Clip, DecodedClip, Encoded, Predictions, PseudoLabels, Rejected

if TYPE_CHECKING:
    from torch import Tensor

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


class Encoder(Protocol):
    """A warm encoder on a worker. A clip's row must not depend on the other clips of the call, to the bit on CPU."""

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded: ...


class EncoderRecipe(Protocol):
    """What it takes to make an encoder.

    `stream` names the feature column it fills. `reads` is what a clip's row hangs on besides the recipe: "video" for the
    file's bytes, "text" for transcript and hint, "name" for the clip's id alone. `identity` holds all that can change the bytes
    of a feature (architecture, digest of the weights, preprocessing, pooling, dtype), and nothing that cannot (device, batch
    size, path).
    """

    @property
    def stream(self) -> str: ...

    @property
    def reads(self) -> str: ...

    def identity(self) -> Mapping[str, Json]: ...

    def load(self) -> Encoder: ...


class Decoder(Protocol):
    """One file to frames and sound. Raises Undecodable with a stable code."""

    def decode(self, clip: Clip) -> DecodedClip: ...


class FrameSampler(Protocol):
    """Which moments of a clip are looked at."""

    def times_s(self, duration_s: float) -> NDArray[np.float64]:
        """Presentation times `(T,)` in [0, duration_s), increasing."""
        ...


class FusionHead(Protocol):
    """`features[stream]` `(B, D)` and `present` bool `(B, M)` to logits `(B, C)`; an absent stream must not change the answer."""

    def __call__(self, features: Mapping[str, Tensor], present: Tensor) -> Tensor: ...


class SelectionPolicy(Protocol):
    """Which unlabelled clips the student may learn from."""

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        """`judged` and `truth` are the teacher's out-of-fold predictions on labelled clips and their human labels `(N,)`."""
        ...


class Teacher(Protocol):
    """Anything outside that can name the emotion of a clip."""

    @property
    def name(self) -> str: ...

    def ask(
        self, clips: Sequence[Clip], *, on_answer: Callable[[], None] = lambda: None
    ) -> tuple[Predictions, tuple[Rejected, ...]]:
        """Predictions of the clips it has a usable answer for, sorted; the others with the reason, never a guess."""
        ...

    def answers(self, clips: Sequence[Clip], *, on_answer: Callable[[], None] = lambda: None) -> Mapping[str, str | None]:
        """Its words on each clip, by id, None where it has none: a hint for a text encoder."""
        ...
