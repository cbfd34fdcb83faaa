"""A clip's sound to an audio feature with a speech model from transformers: HuBERT, wav2vec2, WavLM, Whisper's encoder.

    waveform (S,) ── pieces of at most 10 s ──► hidden states (T, D), chosen layers summed ──► mean (and deviation) ──► (D,)

The sum of the last four hidden layers, mean over time, is MERTools' recipe. Two things differ from the models' manuals: Whisper
gets a window as long as the clip instead of 30 s (its position embeddings are cut to match), a fifth of the work for a clip of
three seconds; and a HuBERT or wav2vec2 never sees padding, which with group norm would change its features by whole units.
`spectra` has the encoder that needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.encoders.rows import encoded, pooled
from orchestrator.encoders.spectra import LogMelStatistics
from orchestrator.encoders.weights import Precision, as_local, digest_of_directory, find_model
from orchestrator.errors import ConfigError
from orchestrator.seams import Json
from orchestrator.vocabulary import DecodedClip, Encoded, modality_of

if TYPE_CHECKING:
    import torch


__all__ = ["LogMelStatistics", "SpeechEncoder", "SpeechModel"]

PIECE_S = 10.0  # attention over a longer piece costs the square, and adds nothing to the mood of a voice
SHORTEST_S = 0.1  # below this the convolutions have nothing to stand on: silence is added
_PIECES_ON_GPU = 16


@dataclass(frozen=True, slots=True)
class SpeechModel:
    """Recipe of a speech encoder.

    - `model`: a directory or a hub name; `revision` pins a hub model.
    - `layers`: indices into transformers' `hidden_states` (0 is the embedding) whose sum is pooled.
    - `pooling`: "mean" over time, or "mean+std", twice as wide.
    - `precision`: "auto" is half on a GPU, single on a CPU; name one where both kinds of worker share a store.
    """

    model: str
    stream: str = "audio"
    revision: str | None = None
    layers: tuple[int, ...] = (-4, -3, -2, -1)
    pooling: Literal["mean", "mean+std"] = "mean"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if modality_of(self.stream) != "audio":
            raise ConfigError(f"a speech encoder's stream is 'audio' or 'audio.<name>', got {self.stream!r}")
        if self.pooling not in ("mean", "mean+std"):
            raise ConfigError(f"SpeechModel.pooling must be 'mean' or 'mean+std', got {self.pooling!r}")
        object.__setattr__(self, "model", as_local(self.model))
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ConfigError("SpeechModel.layers is empty; name at least one hidden layer, such as -1")

    @property
    def reads(self) -> str:
        return "video"

    def identity(self) -> Mapping[str, Json]:
        """Raises ModelUnavailable."""
        return {
            "encoder": "speech_model",
            "version": 1,
            "weights": digest_of_directory(find_model(self.model, self.revision)),
            "layers": self.layers,
            "pooling": self.pooling,
            "piece_s": PIECE_S,
            "precision": self.precision,
        }

    def load(self) -> SpeechEncoder:
        """Raises ModelUnavailable."""
        return SpeechEncoder(self)


class SpeechEncoder:
    """A warm speech model."""

    def __init__(self, recipe: SpeechModel) -> None:
        from orchestrator.encoders.devices import batches_for, best_device, dtype_of
        from orchestrator.encoders.pretrained import layer_indices, load_extractor, load_model

        self._recipe = recipe
        self._device = best_device()
        self._dtype = dtype_of(recipe.precision, self._device)
        self._model = load_model(recipe.model, recipe.revision, self._dtype).to(self._device)
        self._extractor = load_extractor(recipe.model, recipe.revision)
        self._layers = layer_indices(recipe.layers, self._model.config, recipe.model)
        self._batches = batches_for(self._device, _PIECES_ON_GPU)
        self._forward = self._whisper if self._model.config.model_type == "whisper" else self._waveforms
        self._positions: Any = getattr(self._model, "embed_positions", None)  # Whisper's own, 30 s long
        self.width = int(self._model.config.hidden_size) * (1 if recipe.pooling == "mean" else 2)

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        """One row a clip, `(B, D)`; a clip without sound is absent. Raises ConfigError for another sampling rate."""
        waiting = iter(self.steps([clip for clip in clips if len(clip.waveform)]))
        rows = [pooled(next(waiting), self._recipe.pooling) if len(clip.waveform) else None for clip in clips]
        return encoded(self._recipe.stream, clips, rows, self.width)

    def steps(self, clips: Sequence[DecodedClip]) -> list[NDArray[np.float32]]:
        """Frame-level features `(T, D)` of each clip, T about 50 a second; every clip must have sound."""
        pieces = [self._pieces(clip) for clip in clips]
        flat = [piece for several in pieces for piece in several]
        # Equal lengths only: without padding no model's features hang on its neighbours.
        done = iter(self._batches.run(flat, self._forward, length=len, mixed=False))
        return [np.concatenate([next(done) for _ in several]) for several in pieces]

    def _pieces(self, clip: DecodedClip) -> list[NDArray[np.float32]]:
        rate_hz = self._extractor.sampling_rate
        if clip.rate_hz != rate_hz:
            raise ConfigError(
                f"{self._recipe.model} hears {rate_hz} Hz, {clip.clip_id} has {clip.rate_hz}: set decode.rate_hz={rate_hz}"
            )
        missing = int(SHORTEST_S * rate_hz) - len(clip.waveform)
        waveform = np.pad(clip.waveform, (0, max(0, missing)))
        count = -(-len(waveform) // int(PIECE_S * rate_hz))
        return np.array_split(waveform, count)  # as even as can be: a tail of a few samples would have no features

    def _waveforms(self, batch: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """HuBERT, wav2vec2, WavLM and kin read samples, `(B, S)`."""
        inputs = self._extractor(list(batch), sampling_rate=self._extractor.sampling_rate, return_tensors="pt")
        return self._summed(inputs["input_values"])

    def _whisper(self, batch: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Whisper reads log-mel frames `(B, mels, 2 T)`, and is told that its window is T positions long."""
        from torch import nn

        inputs = self._extractor(
            list(batch), sampling_rate=self._extractor.sampling_rate, padding="longest", truncation=False, return_tensors="pt"
        )["input_features"]
        positions = inputs.shape[-1] // 2
        self._model.embed_positions = nn.Embedding(
            positions, self._positions.embedding_dim, _weight=self._positions.weight[:positions]
        )
        self._model.config.max_source_positions = positions
        return self._summed(inputs[..., : 2 * positions])

    def _summed(self, inputs: torch.Tensor) -> list[NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            states: Any = self._model(inputs.to(self._device, self._dtype), output_hidden_states=True).hidden_states
            return list(torch.stack([states[i].float() for i in self._layers]).sum(dim=0).cpu().numpy())  # B of (T, D)
