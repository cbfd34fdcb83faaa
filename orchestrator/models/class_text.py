"""What CLIP makes of the classes: fixed sentences averaged, or sentences whose context learns (CoOp, Zhou et al. 2022).

fixed parts   [SOS] . . . . happy . [EOS]     embedded once, (K, L, W), cut behind the longest [EOS]: the tower is causal
context             ^ ^ ^ ^                   n learnable rows, scattered in at every step
tower         value at [EOS], projected       (K, E), unit length
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orchestrator.models.prompts import PromptScheme, Tokenize


class TextTower:
    """The text half of an open_clip model, which keeps it in `.text` or spread over itself. Owns no weights."""

    def __init__(self, clip: nn.Module) -> None:
        tower: Any = getattr(clip, "text", clip)
        pool = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
        if pool != "argmax" or getattr(tower, "cls_emb", None) is not None:
            raise ValueError(f"the text tower must be read at its last word, but this one pools by {pool!r}: choose a CLIP model")
        self._tower = tower
        self.device: torch.device = tower.token_embedding.weight.device
        self.width: int = tower.token_embedding.weight.shape[1]
        self.places: int = tower.positional_embedding.shape[0]

    def embed(self, ids: Tensor) -> Tensor:
        """Word embeddings without positions, `(..., W)`."""
        return torch.as_tensor(self._tower.token_embedding(ids))

    def encode(self, words: Tensor, ends: Tensor) -> Tensor:
        """Embedded sentences `(K, L, W)` whose last words stand at `ends` `(K,)` to unit vectors `(K, E)`."""
        length = words.shape[1]
        x = words + self._tower.positional_embedding[:length]
        x = self._tower.transformer(x, attn_mask=self._tower.attn_mask[:length, :length])
        x = self._tower.ln_final(x[torch.arange(len(x), device=x.device), ends])
        projection = self._tower.text_projection
        return F.normalize(projection(x) if isinstance(projection, nn.Linear) else x @ projection, dim=-1)


def class_sentences(scheme: PromptScheme, names: Sequence[str]) -> list[list[str]]:
    """Fixed sentences of each class: its descriptions, or the templates with its name in them."""
    if not scheme.descriptions:
        return [[template.format(word) for template in scheme.templates for word in scheme.called(name)] for name in names]
    if len(scheme.descriptions) != len(names):
        raise ValueError(f"{len(scheme.descriptions)} classes have descriptions, but there are {len(names)}: {list(names)}")
    return [list(sentences) for sentences in scheme.descriptions]


@torch.no_grad()
def zero_shot(tower: TextTower, tokenize: Tokenize, sentences: Sequence[Sequence[str]]) -> Tensor:
    """Mean direction of each class's sentences, `(K, E)`, unit length; nothing is learnt."""
    rows = []
    for texts in sentences:
        ids = tokenize(texts).to(tower.device)
        rows.append(tower.encode(tower.embed(ids), ids.argmax(dim=-1)).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


class LearntContext(nn.Module):
    """Class sentences whose context learns: `()` to unit vectors `(K, E)`, each the mean direction over the words of its class.

    Everything but `context` is fixed and embedded once, when the module is made. R sentences, one for each word of each class.
    """

    def __init__(self, tower: TextTower, tokenize: Tokenize, scheme: PromptScheme, names: Sequence[str]) -> None:
        super().__init__()
        self._tower = tower
        start = _start(scheme.context, tower, tokenize)  # (n, W)
        self.context = nn.Parameter(start.repeat(len(names), 1, 1) if scheme.class_specific else start)
        before = {"end": len(start), "middle": len(start) // 2, "front": 0}[scheme.class_position]
        owned = [(k, word) for k, name in enumerate(names) for word in scheme.called(name)]
        rows, places = zip(*(_lay_out(_words(tokenize, f"{word}."), len(start), before) for _, word in owned), strict=True)
        longest = max(map(len, rows))
        if longest > tower.places:
            raise ValueError(f"{len(start)} words of context and a class name need {longest} places; there are {tower.places}")
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=tower.device)  # (R, L)
        with torch.no_grad():
            self.register_buffer("fixed", tower.embed(ids), persistent=False)
        fixed = {"places": places, "ends": [len(row) - 1 for row in rows], "owners": [k for k, _ in owned]}  # (R, n), (R,), (R,)
        for name, values in fixed.items():
            self.register_buffer(name, torch.tensor(values, device=tower.device), persistent=False)

    def forward(self) -> Tensor:
        fixed, owners = self.get_buffer("fixed"), self.get_buffer("owners")
        context = self.context[owners] if self.context.ndim == 3 else self.context.expand(len(owners), -1, -1)  # (R, n, W)
        index = self.get_buffer("places")[..., None].expand_as(context)
        sentences = self._tower.encode(fixed.scatter(1, index, context.to(fixed.dtype)), self.get_buffer("ends"))  # (R, E)
        members = F.one_hot(owners).T.to(sentences.dtype)  # (K, R)
        return F.normalize(members @ sentences, dim=-1)


@torch.no_grad()
def _start(context: int | str, tower: TextTower, tokenize: Tokenize) -> Tensor:
    """First value of the context, `(n, W)`: random, or the words of a phrase."""
    if isinstance(context, str):
        return tower.embed(torch.tensor(_words(tokenize, context)[1:-1], device=tower.device)).clone()
    return torch.randn(context, tower.width).to(tower.device) * 0.02


def _lay_out(ids: list[int], context: int, before: int) -> tuple[list[int], list[int]]:
    """A sentence with gaps for its context, `before` of them ahead of the class name, and the places of the gaps."""
    sos, *name, stop, eos = ids
    places = [1 + i if i < before else 1 + len(name) + i for i in range(context)]
    return [sos, *[0] * before, *name, *[0] * (context - before), stop, eos], places


def _words(tokenize: Tokenize, text: str) -> list[int]:
    """Ids of one text with its start and end, without padding; CLIP's end has the highest id of all."""
    ids = tokenize([text])[0]
    return [int(i) for i in ids[: int(ids.argmax()) + 1]]
