from __future__ import annotations

import numpy as np
import pytest

from orchestrator.rounds.speakers import Usual, within_speakers
from orchestrator.vocabulary import Features


def features(values: np.ndarray, present: np.ndarray | None = None) -> Features:
    ids = np.array([f"c{row}" for row in range(len(values))])
    return Features(ids, {"audio": values}, np.ones((len(values), 1), dtype=bool) if present is None else present[:, None])


def spoken(clips: int = 60, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Two speakers with voices far apart."""
    ann = np.arange(clips) % 2 == 1
    drawn = np.random.default_rng(0).normal(size=(clips, 3))
    return np.where(ann[:, None], 5 * drawn + 40, drawn).astype(dtype), np.where(ann, "ann", "bob")


def test_speakers_become_alike() -> None:
    values, groups = spoken()
    after = within_speakers(features(values), groups, shrinkage=0.0).values["audio"]
    for speaker in ("ann", "bob"):
        np.testing.assert_allclose(after[groups == speaker].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(after[groups == speaker].std(axis=0), 1, atol=1e-5)


def test_a_speaker_of_one_clip_is_not_emptied() -> None:
    values, groups = spoken()
    groups = groups.astype("<U8")
    groups[0] = "stranger"
    after = within_speakers(features(values), groups).values["audio"]
    assert np.isfinite(after).all()
    assert np.abs(after[0]).max() > 0.1


def test_clips_of_unknown_speaker_are_standardised_over_all_clips() -> None:
    values, groups = spoken()
    after = within_speakers(features(values), np.full(len(groups), "")).values["audio"]
    np.testing.assert_allclose(after, (values - values.mean(axis=0)) / values.std(axis=0), atol=1e-4)


def test_absent_rows_neither_count_nor_change_and_the_dtype_stays() -> None:
    values, groups = spoken(dtype=np.float16)
    present = np.arange(len(values)) > 3
    values[~present] = 0
    after = within_speakers(features(values, present), groups).values["audio"]
    assert not after[~present].any()
    assert after.dtype == np.float16
    np.testing.assert_allclose(after[present], within_speakers(features(values[4:]), groups[4:]).values["audio"], atol=1e-2)


def test_a_feature_that_never_changes_within_a_speaker_says_nothing() -> None:
    values, groups = spoken()
    values[:, 1] = np.where(groups == "ann", 7, 3)
    assert not within_speakers(features(values), groups, shrinkage=0.0).values["audio"][:, 1].any()


def test_groups_must_belong_to_the_clips() -> None:
    values, groups = spoken()
    with pytest.raises(ValueError, match="60 clips need as many groups"):
        within_speakers(features(values), groups[:-1])


def test_a_clip_that_comes_later_is_read_as_it_would_have_been_before() -> None:
    values, _ = spoken()
    usual = Usual.of(features(values))
    later = within_speakers(features(values[:1]), np.array([""]), usual).values["audio"]
    np.testing.assert_allclose(later, (values[:1] - values.mean(axis=0)) / values.std(axis=0), atol=1e-4)
