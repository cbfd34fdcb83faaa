"""Several voices on one clip: folds, single modalities, an external teacher.

Voices are columns of `Predictions.votes`; -1 is a voice that could not speak, and it counts neither for nor against.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.rounds.selection import accept, in_clip_order, winners
from orchestrator.seams import SelectionPolicy
from orchestrator.vocabulary import Names, Predictions, PseudoLabels


def agreeing(votes: NDArray[np.int8], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many voices name the given class, `(N,)`."""
    return np.asarray((votes == classes[:, None]).sum(axis=1), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Only clips on which at least `least` voices name the teacher's class go on to `policy` (MER 2025, runner-up's consensus).

    - `voices`: which columns count; empty means all. An external teacher as the only voice is a gate.
    - `of_those_who_speak`: a clip with fewer than `least` speaking voices passes when all that speak agree and one does.
    """

    policy: SelectionPolicy
    least: int = 2
    voices: tuple[str, ...] = ()
    of_those_who_speak: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "voices", tuple(self.voices))  # Hydra hands over lists
        if self.least < 1 or (self.voices and self.least > len(self.voices)):
            raise ValueError(f"agreement of {self.least} voices cannot be asked of {len(self.voices) or 'no'} voices")

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        votes = self._votes(pool)
        named = agreeing(votes, winners(pool).labels)
        spoke = (votes >= 0).sum(axis=1)
        passes = named >= self.least
        if self.of_those_who_speak:
            passes |= (spoke < self.least) & (named == spoke) & (spoke > 0)
        return self.policy.select(pool.rows(passes), judged=judged, truth=truth, round_index=round_index)

    def _votes(self, pool: Predictions) -> NDArray[np.int8]:
        if pool.votes is None:
            raise ValueError("agreement needs Predictions.votes: predict with voices (folds, modalities or an external teacher)")
        missing = [voice for voice in self.voices if voice not in pool.voices]
        if missing:
            raise ValueError(f"agreement asks for voices {missing}; the predictions have {list(pool.voices)}")
        return pool.votes[:, [pool.voices.index(voice) for voice in self.voices]] if self.voices else pool.votes


@dataclass(frozen=True, slots=True)
class FirstFrom:
    """Round 1 learns what an external teacher said of the pool; from round 2 on `policy` chooses from its student.

    Emotion-LLaMA as labeller, say. It has seen none of the human labels, so every fold's student may learn all it says. Clips it
    did not answer stay unlabelled.
    """

    policy: SelectionPolicy
    speaker: Predictions

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        if round_index > 1:
            return self.policy.select(pool, judged=judged, truth=truth, round_index=round_index)
        said = in_clip_order(self.speaker.rows(np.isin(self.speaker.clip_ids, pool.clip_ids)))
        return accept(said, np.ones(len(said), dtype=bool), winners(said), np.zeros(pool.logits.shape[1]), round_index)


def with_voice(predictions: Predictions, name: str, speaker: Predictions) -> Predictions:
    """`predictions` with one more voice: the class another teacher names, -1 for clips it did not answer.

    Raises ValueError when that name is taken.
    """
    if name in predictions.voices:
        raise ValueError(f"voice {name!r} is there already; voices are {list(predictions.voices)}")
    rows, known = _rows_of(speaker.clip_ids, predictions.clip_ids)
    said = (
        np.where(known, winners(speaker).labels[rows], -1).astype(np.int8)
        if len(speaker)
        else np.full(len(predictions), -1, np.int8)
    )
    votes = said[:, None] if predictions.votes is None else np.column_stack([predictions.votes, said])
    return replace(predictions, votes=votes, voices=(*predictions.voices, name))


def _rows_of(known_ids: Names, asked: Names) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of each asked clip among the known ones, and whether it is there."""
    if not len(known_ids):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), dtype=bool)
    order = np.argsort(known_ids, kind="stable")
    rows = order[np.minimum(np.searchsorted(known_ids, asked, sorter=order), len(order) - 1)]
    return rows, known_ids[rows] == asked
