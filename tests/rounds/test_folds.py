from __future__ import annotations

import numpy as np
import pytest

from orchestrator.rounds.folds import freeze_folds

LABELS = np.tile(np.arange(4), 30)
SPEAKERS = np.repeat([f"s{speaker:02d}" for speaker in range(12)], 10)
NOBODY = np.full(len(LABELS), "")


def test_folds_never_split_a_speaker() -> None:
    folds = freeze_folds(LABELS, SPEAKERS, 4, seed=0)
    assert set(folds.tolist()) == {0, 1, 2, 3}
    assert all(len(set(folds[speaker == SPEAKERS].tolist())) == 1 for speaker in np.unique(SPEAKERS))


def test_the_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    assert freeze_folds(LABELS, SPEAKERS, 4, seed=3).tolist() == freeze_folds(LABELS, SPEAKERS, 4, seed=3).tolist()
    assert freeze_folds(LABELS, SPEAKERS, 4, seed=3).tolist() != freeze_folds(LABELS, SPEAKERS, 4, seed=4).tolist()


def test_without_speakers_every_fold_has_its_share_of_every_class() -> None:
    folds = freeze_folds(LABELS, NOBODY, 5, seed=0)
    counts = np.array([np.bincount(LABELS[folds == fold], minlength=4) for fold in range(5)])
    assert (counts == 6).all()


def test_a_clip_of_unknown_speaker_is_its_own_group() -> None:
    groups = SPEAKERS.copy()
    groups[:10] = ""
    folds = freeze_folds(LABELS, groups, 4, seed=0)
    assert (folds >= 0).all()
    assert len(set(folds[groups == "s01"].tolist())) == 1


def test_fewer_speakers_than_folds_give_fewer_folds_and_say_so() -> None:
    groups = np.where(np.arange(len(LABELS)) % 2, "a", "b")
    with pytest.warns(UserWarning, match="2 speakers cannot fill 5 folds"):
        folds = freeze_folds(LABELS, groups, 5, seed=0)
    assert set(folds.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("labels", "groups", "k", "message"),
    [
        (LABELS, np.full(len(LABELS), "ann"), 4, "all labelled clips are of speaker 'ann'"),
        (LABELS[:1], NOBODY[:1], 4, "label more clips"),
        (LABELS, NOBODY, 1, "at least 2"),
        (LABELS, NOBODY[:-1], 4, "120 labels but 119 groups"),
    ],
)
def test_impossible_folds_are_refused_with_the_remedy(labels: np.ndarray, groups: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        freeze_folds(labels, groups, k, seed=0)


def test_a_handful_of_labels_still_gets_folds_of_all_its_groups() -> None:
    folds = freeze_folds(np.array([0, 1, 2]), np.array(["a", "b", "c"]), 3, seed=0)
    assert sorted(folds.tolist()) == [0, 1, 2]
