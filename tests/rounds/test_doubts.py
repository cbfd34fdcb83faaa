from __future__ import annotations

import numpy as np
import pytest

from orchestrator.rounds.doubts import novelties, suspects, worth_labelling
from orchestrator.vocabulary import Features
from tests.rounds.said import said


def features(video: list[list[float]], audio: list[list[float]], present: list[list[bool]]) -> Features:
    ids = np.array([f"c{row}" for row in range(len(video))])
    return Features(ids, {"video": np.array(video, np.float32), "audio": np.array(audio, np.float32)}, np.array(present))


def test_the_clip_that_is_doubtful_disputed_and_novel_is_worth_most() -> None:
    pool = said([[0.99, 0.01], [0.55, 0.45], [0.6, 0.4]], votes=np.array([[0, 0], [0, 1], [0, 0]], np.int8), voices=("A", "V"))
    ranked = worth_labelling(pool, novelty=np.array([0.1, 0.4, 0.2]))
    assert [clip.clip_id for clip in ranked] == ["c000001", "c000002", "c000000"]
    assert ranked[0].disagreement == 0.5
    assert ranked[0].worth == pytest.approx(1.0)


def test_equal_worth_is_ranked_by_clip_id_and_only_the_count_asked_is_listed() -> None:
    ranked = worth_labelling(said([[0.5, 0.5]] * 4, ["d", "b", "a", "c"]), count=2)
    assert [clip.clip_id for clip in ranked] == ["a", "b"]


def test_an_empty_pool_has_nothing_worth_labelling() -> None:
    assert worth_labelling(said(np.zeros((0, 3)))) == ()


def test_novelty_is_the_distance_to_the_nearest_labelled_clip_over_the_streams_present() -> None:
    known = features([[1, 0], [-1, 0.0]], [[1, 1], [-1, -1]], [[True, True], [True, True]])
    asked = features([[2, 0], [0, 1], [1, 0]], [[2, 2], [1, 1], [0, 0]], [[True, True], [True, False], [False, False]])
    far = novelties(asked, known)
    assert far[0] == pytest.approx(0.0, abs=1e-9)
    assert far[1] == pytest.approx(0.5, abs=1e-9)  # at a right angle to every labelled clip
    assert far[2] == 1.0  # nothing of it is known


def test_a_wrong_human_label_is_found_and_its_class_suggested() -> None:
    judged = said([[0.95, 0.05]] * 10 + [[0.05, 0.95]] * 10)
    truth = np.array([0] * 10 + [1] * 10)
    truth[3] = 1
    found = suspects(judged, truth)
    assert [(clip.clip_id, clip.given, clip.suggested) for clip in found] == [("c000003", 1, 0)]
    assert found[0].margin == pytest.approx(0.9)


def test_clean_labels_raise_no_suspicion_even_when_a_class_is_hard() -> None:
    judged = said([[0.9, 0.1]] * 10 + [[0.45, 0.55]] * 10)
    assert suspects(judged, np.array([0] * 10 + [1] * 10)) == ()


def test_a_class_nobody_labelled_is_never_suggested() -> None:
    judged = said([[0.2, 0.1, 0.7]] * 5 + [[0.1, 0.8, 0.1]] * 5)
    assert all(clip.suggested != 2 for clip in suspects(judged, np.array([0] * 5 + [1] * 5)))
