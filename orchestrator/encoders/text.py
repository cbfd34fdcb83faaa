"""A clip's words to a text feature: by a language model's hidden states, or by hashed n-grams when there is none.

    transcript, hint ── text_of ──► one clean line ── tokens ──► hidden states (T, D) of the content tokens ── mean ──► (D,)

`text_of` is the one door: what it returns is what is encoded, and its SHA-256 is the key of the stored row, so that clips with
the same words share one. A transcript is data from strangers: it is normalised, stripped of invisible characters, and its control
tokens are split into ordinary ones, so that it can neither end its own turn nor open another's. A language model is only read
here, never asked: there is no answer to hijack.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.encoders.rows import encoded
from orchestrator.encoders.weights import Precision, as_local, digest_of_directory, find_model
from orchestrator.errors import ConfigError
from orchestrator.seams import Json
from orchestrator.vocabulary import Clip, DecodedClip, Encoded, modality_of

Source = Literal["transcript", "hint", "both"]
MAX_CHARACTERS = 20_000  # nobody speaks more in a clip; a longer transcript is an accident or an attack
TRUNCATED = "TEXT_TRUNCATED"
_TEXTS_ON_GPU = 32
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn"}  # control, format (bidi, zero width), surrogate, private, unassigned


def text_of(clip: Clip | DecodedClip, source: Source = "both") -> str | None:
    """The text that is encoded, None when there are no words: a transcript on one line, a hint on the next."""
    parts = {"transcript": (clip.transcript,), "hint": (clip.hint,), "both": (clip.transcript, clip.hint)}[source]
    lines = [clean(part) for part in parts if part]
    return "\n".join(line for line in lines if line) or None


def text_key(clip: Clip | DecodedClip, source: Source = "both") -> str:
    """Key of a stored text feature: SHA-256 of the text that is encoded."""
    return hashlib.sha256((text_of(clip, source) or "").encode()).hexdigest()


def clean(text: str) -> str:
    """NFKC on one line, without control, bidirectional and zero-width characters, at most MAX_CHARACTERS long."""
    spaced = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]))
    return "".join(c for c in spaced if unicodedata.category(c) not in _INVISIBLE)[:MAX_CHARACTERS].strip()


@dataclass(frozen=True, slots=True)
class HashedNgrams:
    """Recipe of the encoder that needs no download: counts of words and of 2 to 4 characters, hashed to `width` columns.

    Signed hashing (Weinberger et al. 2009), log counts, length 1. NumPy only.
    """

    stream: str = "text"
    width: int = 512
    source: Source = "both"

    def __post_init__(self) -> None:
        _check_stream(self.stream)
        if self.width < 16:
            raise ConfigError(f"HashedNgrams.width must be at least 16, got {self.width}")

    @property
    def reads(self) -> str:
        return "text"

    def identity(self) -> Mapping[str, Json]:
        return {"encoder": "hashed_ngrams", "version": 1, "width": self.width, "source": self.source}

    def load(self) -> HashedNgrams:
        return self

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        """One row a clip, `(B, width)`; a clip without words is absent."""
        texts = [text_of(clip, self.source) for clip in clips]
        return encoded(self.stream, clips, [self._row(text) if text else None for text in texts], self.width)

    def _row(self, text: str) -> NDArray[np.float64]:
        counts = np.zeros(self.width)
        for gram in ngrams(text):
            number = int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest())
            counts[(number >> 1) % self.width] += 1 if number & 1 else -1
        logs = np.sign(counts) * np.log1p(np.abs(counts))
        return np.asarray(logs / max(float(np.linalg.norm(logs)), 1e-12))


def ngrams(text: str) -> list[str]:
    """Words, and runs of 2 to 4 characters of each word with its borders marked."""
    words = re.findall(r"\w+|[^\w\s]+", text.casefold())
    marked = [f"<{word}>" for word in words]
    return marked + [word[i : i + n] for word in marked for n in (2, 3, 4) for i in range(len(word) - n + 1)]


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """Recipe of a text encoder from transformers: any causal language model (Qwen, Llama, ...) or BERT-like one.

    - `model`: a directory or a hub name; `revision` pins a hub model.
    - `source`: what is read: the transcript, the hint, or both.
    - `template`: text around the words, `{text}` once; its tokens are context and never pooled.
    - `layers`: indices into transformers' `hidden_states` (0 is the embedding) whose sum is pooled; the last four by default, as
      MERTools does.
    - `max_tokens`: longer texts are cut, and the row is flagged TEXT_TRUNCATED.
    - `precision`: "auto" is half on a GPU, single on a CPU; name one where both kinds of worker share a store.
    """

    model: str
    stream: str = "text"
    revision: str | None = None
    source: Source = "both"
    template: str = "{text}"
    layers: tuple[int, ...] = (-4, -3, -2, -1)
    max_tokens: int = 512
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        _check_stream(self.stream)
        object.__setattr__(self, "model", as_local(self.model))
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.template.count("{text}") != 1:
            raise ConfigError(f"LanguageModel.template needs exactly one {{text}}, got {self.template!r}")
        if not self.layers:
            raise ConfigError("LanguageModel.layers is empty; name at least one hidden layer, such as -1")
        if self.max_tokens < 8:
            raise ConfigError(f"LanguageModel.max_tokens must be at least 8, got {self.max_tokens}")

    @property
    def reads(self) -> str:
        return "text"

    def identity(self) -> Mapping[str, Json]:
        """Raises ModelUnavailable."""
        return {
            "encoder": "language_model",
            "version": 1,
            "weights": digest_of_directory(find_model(self.model, self.revision)),
            "source": self.source,
            "template": self.template,
            "layers": self.layers,
            "max_tokens": self.max_tokens,
            "precision": self.precision,
        }

    def load(self) -> TokenEncoder:
        """Raises ModelUnavailable."""
        return TokenEncoder(self)


class Tokens(NamedTuple):
    """One text as a model reads it."""

    ids: list[int]
    content: list[bool]  # which tokens are pooled: the words, not the template, BOS, EOS, CLS or SEP
    truncated: bool


class TokenEncoder:
    """A warm language model."""

    def __init__(self, recipe: LanguageModel) -> None:
        from orchestrator.encoders.devices import batches_for, best_device, dtype_of
        from orchestrator.encoders.pretrained import layer_indices, load_model, load_tokenizer

        self._recipe = recipe
        self._device = best_device()
        dtype = dtype_of(recipe.precision, self._device)
        self._model = load_model(recipe.model, recipe.revision, dtype).to(self._device)
        self._tokenizer = load_tokenizer(recipe.model, recipe.revision)
        self._batches = batches_for(self._device, _TEXTS_ON_GPU)
        config = self._model.config.get_text_config()
        self._layers = layer_indices(recipe.layers, config, recipe.model)
        positions = getattr(config, "max_position_embeddings", None) or recipe.max_tokens
        self._max_tokens = min(recipe.max_tokens, positions, self._tokenizer.model_max_length)
        self._before, _, self._after = recipe.template.partition("{text}")
        self._controls = _control_tokens(self._tokenizer.get_added_vocab())
        self.width = int(config.hidden_size)

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        """One row a clip, `(B, D)`; a clip without words is absent."""
        tokens = [self.tokens(clip) for clip in clips]
        waiting = iter(self._steps([line for line in tokens if line]))
        rows = [next(waiting).mean(axis=0, dtype=np.float64) if line else None for line in tokens]
        flags = {clip.clip_id: (TRUNCATED,) for clip, line in zip(clips, tokens, strict=True) if line and line.truncated}
        return encoded(self._recipe.stream, clips, rows, self.width, flags)

    def steps(self, clips: Sequence[DecodedClip]) -> list[NDArray[np.float32]]:
        """Token-level features `(T, D)` of the content tokens of each clip; every clip must have words."""
        return self._steps([line for line in map(self.tokens, clips) if line])

    def tokens(self, clip: DecodedClip) -> Tokens | None:
        """What the model reads of a clip, None when it has no words."""
        text = text_of(clip, self._recipe.source)
        if text is None:
            return None
        text = self._controls.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        made = self._tokenizer(
            self._before + text + self._after,
            split_special_tokens=True,
            truncation=True,
            max_length=self._max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        first, last = len(self._before), len(self._before) + len(text)
        content = [
            not special and start < last and end > first
            for special, (start, end) in zip(made["special_tokens_mask"], made["offset_mapping"], strict=True)
        ]
        return Tokens(made["input_ids"], content, bool(made.encodings[0].overflowing)) if any(content) else None

    def _steps(self, lines: Sequence[Tokens]) -> list[NDArray[np.float32]]:
        return self._batches.run(lines, self._forward, length=lambda line: len(line.ids))

    def _forward(self, batch: Sequence[Tokens]) -> list[NDArray[np.float32]]:
        import torch

        longest = max(len(line.ids) for line in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (B, T), padded on the right: the mask hides it
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, line in enumerate(batch):
            ids[row, : len(line.ids)] = torch.tensor(line.ids)
            mask[row, : len(line.ids)] = 1
        with torch.inference_mode():
            states = self._model(
                input_ids=ids.to(self._device), attention_mask=mask.to(self._device), output_hidden_states=True
            ).hidden_states
            summed = torch.stack([states[i].float() for i in self._layers]).sum(dim=0).cpu()  # (B, T, D)
        return [summed[row, : len(line.ids)][torch.tensor(line.content)].numpy() for row, line in enumerate(batch)]


def _control_tokens(added: Iterable[str]) -> re.Pattern[str]:
    """What must not be read as one token in a transcript: <|im_end|>, [SEP], <tool_call>, special or not."""
    controls = [token for token in added if token[:1] in ("<", "[") and token[-1:] in (">", "]")]
    return re.compile("|".join(map(re.escape, sorted(controls, key=len, reverse=True))) or r"(?!)")


def _check_stream(stream: str) -> None:
    if modality_of(stream) != "text":
        raise ConfigError(f"a text encoder's stream is 'text' or 'text.<name>', got {stream!r}")
