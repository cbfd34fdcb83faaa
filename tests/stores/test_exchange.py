"""Submissions, annotation lines and answers: what others read and write, exactly, and never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import InputError
from orchestrator.stores.exchange import (
    check_submission,
    parse_answer,
    read_answers,
    read_candidates,
    read_merr,
    spoken,
    write_merr,
    write_submission,
)
from orchestrator.vocabulary import Emotions, Predictions

SIX = Emotions(("neutral", "angry", "happy", "sad", "worried", "surprise"))


def said(names: list[str]) -> Predictions:
    return Predictions(np.array(names), np.eye(6, dtype=np.float32)[np.arange(len(names)) % 6], "t0")


def test_a_submission_names_exactly_the_candidates_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "candidates.csv").write_text("name\nc\na\n")
    candidates = read_candidates(tmp_path / "candidates.csv")
    write_submission(tmp_path / "submission.csv", said(["a", "b", "c", "d"]), candidates, SIX)
    assert (tmp_path / "submission.csv").read_bytes() == b"name,discrete\nc,happy\na,neutral\n"
    check_submission(tmp_path / "submission.csv", candidates, SIX)


def test_a_candidate_without_a_prediction_is_never_left_out_quietly(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 3 candidates have no prediction, first x, y"):
        write_submission(tmp_path / "submission.csv", said(["a"]), ["a", "x", "y"], SIX)
    assert not (tmp_path / "submission.csv").exists()


def test_candidates_asked_twice_or_without_a_name_column_are_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("name\na\na\n")
    with pytest.raises(InputError, match="asks 1 names twice"):
        read_candidates(tmp_path / "twice.csv")
    (tmp_path / "other.csv").write_text("clip\na\n")
    with pytest.raises(InputError, match="column `name`"):
        read_candidates(tmp_path / "other.csv")


def test_a_submission_is_checked_as_its_scorer_would(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("name,label\na,happy\na,happy\nz,sad\nb,joyful\n")
    with pytest.raises(InputError) as caught:
        check_submission(tmp_path / "s.csv", ["a", "b", "c"], SIX)
    for told in (
        "1 missing, first 'c'",
        "1 not asked for, first 'z'",
        "1 there twice",
        "1 without a known label, first 'b'",
        "header",
    ):
        assert told in str(caught.value)


def test_annotation_lines_come_back(tmp_path: Path) -> None:
    rows = [("sample_1", 83, "happy"), ("sample_2", 40, "sad")]
    write_merr(tmp_path / "merr.txt", rows)
    assert (tmp_path / "merr.txt").read_text() == "sample_1 83 happy\nsample_2 40 sad\n"
    assert read_merr(tmp_path / "merr.txt") == rows
    with pytest.raises(InputError, match="blanks"):
        write_merr(tmp_path / "merr.txt", [("sample 1", 83, "happy")])
    (tmp_path / "broken.txt").write_text("sample_1 83 happy\n\nsample_2 happy\n")
    with pytest.raises(InputError, match=r"1 lines .* line 3"):
        read_merr(tmp_path / "broken.txt")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("happy", 2),
        (" Happy.\n", 2),
        ("The person in the video is angry", 1),
        ("The label is 'sad'!", 3),
        ("surprised", None),
        ("unhappy", None),
        ("He is not happy", None),
        ("sad or worried", None),
        ("sad, very sad", 3),
        ("", None),
        ("I cannot tell", None),
        ("\x00<script>", None),
    ],
)
def test_an_answer_counts_only_when_it_names_one_emotion(text: str, label: int | None) -> None:
    assert parse_answer(text, SIX) == label


def test_class_names_of_several_words_are_found_whole() -> None:
    emotions = Emotions(("very happy", "c++", "sad"))
    assert parse_answer("She is Very Happy.", emotions) == 0
    assert parse_answer("c++", emotions) == 1


def test_unusable_answers_are_counted_and_never_neutral() -> None:
    answers = {"c": "happy", "a": "gibberish", "b": None, "d": "neutral"}
    predictions, rejected = spoken(answers, SIX, teacher="llm", certainty=0.8)
    assert predictions.clip_ids.tolist() == ["c", "d"]
    np.testing.assert_allclose(predictions.probabilities[0], [0.04, 0.04, 0.8, 0.04, 0.04, 0.04], atol=1e-6)
    assert predictions.probabilities[1].argmax() == 0
    assert [(row.clip_id, row.code) for row in rejected] == [("a", "UNPARSEABLE"), ("b", "NO_ANSWER")]
    nobody, _ = spoken({}, SIX, teacher="llm")
    assert len(nobody) == 0
    assert nobody.probabilities.shape == (0, 6)


def test_answers_are_read_from_every_form_they_come_in(tmp_path: Path) -> None:
    records = [
        {"id": "a", "status": "success", "answer": "happy", "error": None},
        {"id": "b", "status": "error", "answer": None, "error": {"message": "no such file"}},
        {"sample_id": "c", "prediction": "sad"},
        {"id": "a", "status": "success", "answer": "angry"},
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert read_answers(tmp_path / "answers.jsonl") == {"a": "angry", "b": None, "c": "sad"}
    (tmp_path / "answers.csv").write_text('name,discrete\na,happy\nb,"sad, I think"\n', encoding="utf-8-sig")
    assert read_answers(tmp_path / "answers.csv") == {"a": "happy", "b": "sad, I think"}
    (tmp_path / "answers.txt").write_text("a 83 happy\n")
    assert read_answers(tmp_path / "answers.txt") == {"a": "happy"}


@pytest.mark.parametrize("content", ['{"id": "a"}\n', '{"answer": "happy"}\n', "not json\n"])
def test_a_file_that_holds_no_answers_is_refused_with_its_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"(row|line) 1"):
        read_answers(tmp_path / "answers.jsonl")
