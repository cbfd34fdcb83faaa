"""Why a clip got its label: answered from a run's directory alone, at once, however many clips it has."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.cluster.explain import explain_clip, finished_rounds, show_attention
from orchestrator.cluster.ledger import RoundLedger
from orchestrator.errors import InputError
from orchestrator.rounds.crossfit import Scored, for_folds
from orchestrator.rounds.decisions import decisions
from orchestrator.rounds.selection import FixedThreshold
from orchestrator.stores.ledger import write_decisions
from orchestrator.stores.runs import ATTENTION, SETTINGS, find_run, write_about
from orchestrator.vocabulary import Predictions, RoundRecord, Verdict

NAMES = ("happy", "sad", "angry")


def said(clip_ids: list[str], labels: list[int], sure: float, teacher: str) -> Predictions:
    logits = np.zeros((len(clip_ids), 3), np.float32)
    logits[np.arange(len(clip_ids)), labels] = np.log(2 * sure / (1 - sure))  # the others share what is left
    votes = np.array([[label, -1] for label in labels], np.int8)
    return Predictions(np.array(clip_ids), logits, teacher, votes=votes, voices=("A", "T"))


def record(index: int, verdict: Verdict = Verdict.PROMOTED) -> RoundRecord:
    teacher = "s0" if index else None
    return RoundRecord(index, teacher, f"s{index}", (1, 1, 0), (), 0.5, 0.5, 0.5, 0.1, verdict, "because", 1.0, 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two folds, a pool of three clips of which round 1 takes two, one of them for one fold's student alone."""
    path = tmp_path / "runs" / "toy-abc"
    ledger = RoundLedger(path)
    labelled = said(["h1", "h2"], [0, 2], 0.8, "s0")
    sure, less = said(["p1", "p2", "p3"], [0, 1, 2], 0.9, "s0"), said(["p1", "p2", "p3"], [0, 1, 2], 0.6, "s0")
    pool = tuple(replace(sure, logits=np.where(np.arange(3)[:, None] < count, sure.logits, less.logits)) for count in (1, 2))
    ledger.write(record(0), Scored(labelled, pool), None)
    policy = FixedThreshold(0.7)
    chosen = [policy.select(fold, judged=labelled, truth=np.array([0, 1]), round_index=1) for fold in pool]
    ledger.write(record(1, Verdict.KEPT), Scored(labelled, pool), for_folds(chosen))
    write_about(path, SETTINGS, {"name": "toy", "emotions": {"names": NAMES}, "seed": 0})
    attention = {
        "worth": [{"clip_id": "p3", "worth": 0.9, "doubt": 0.8, "disagreement": 0.5, "novelty": 0.2}],
        "suspects": [{"clip_id": "h2", "given": "sad", "suggested": "angry", "margin": 0.6}],
        "human labels": {"h1": "happy", "h2": "sad"},
        "rejected": {"broken": "decode EMPTY: 0 bytes"},
    }
    write_about(path, ATTENTION, attention)
    return path


def test_every_kind_of_clip_is_explained(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "p1": ["round 0", "happy", "0.900", "0.700", "accepted, 2 of 2 students", "kept"],
        "p2": ["accepted, 1 of 2 students"],
        "p3": ["below threshold", "0.600", "offers it again"],
        "h2": ["a human labelled it", "disagrees", "sad", "angry"],
        "broken": ["0 bytes"],
    }
    for clip, words in expected.items():
        explain_clip(run, clip, NAMES)
        out = capsys.readouterr().out
        assert [word for word in words if word not in out] == [], out


def test_an_unknown_clip_is_an_error_that_names_its_neighbours(run: Path) -> None:
    with pytest.raises(InputError, match=r"knows no clip 'p33'; did you mean p3"):
        explain_clip(run, "p33", NAMES)
    with pytest.raises(InputError, match="those of the manifest"):
        explain_clip(run, "something else entirely", NAMES)


def test_without_a_clip_it_says_where_to_look(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_attention(run)
    out = capsys.readouterr().out
    assert all(word in out for word in ("p3", "0.90", "h2", "sad", "angry", "0.60"))


def test_a_run_is_found_by_its_settings_else_by_its_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = run.parents[1]
    write_about(run.with_name("toy-def"), SETTINGS, {"name": "toy", "emotions": {"names": NAMES}, "seed": 1})
    asked = {"name": "toy", "emotions": {"names": list(NAMES)}, "cluster": {"cpus": 9}, "rounds": {"rounds": 7}}
    assert find_run(store, {**asked, "seed": 0}) == run
    assert capsys.readouterr().err == ""
    assert find_run(store, {**asked, "seed": 2}).name == "toy-def"
    assert "this is the latest, toy-def" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no run called 'mine' .* are called toy"):
        find_run(store, {"name": "mine"})


def test_a_million_clips_are_explained_at_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = np.char.add("clip ", np.char.zfill(np.arange(1_000_000).astype(np.str_), 7))
    logits = np.random.default_rng(0).standard_normal((len(ids), 3)).astype(np.float32)
    pool = Predictions(ids, logits, "s0")
    labels = FixedThreshold(0.7).select(pool, judged=pool, truth=logits.argmax(1), round_index=1)
    for directory, about in finished_rounds(run)[1:]:
        write_decisions(directory / "decisions.parquet", decisions(pool, labels), pool, about["index"])
    started = time.process_time()
    explain_clip(run, "clip 0777777", NAMES)
    found = time.process_time()
    with pytest.raises(InputError, match="clip 0777777"):
        explain_clip(run, "clip 777777", NAMES)
    assert found - started < 0.3
    assert time.process_time() - found < 1.5
    assert "clip 0777777" in capsys.readouterr().out


def test_explaining_loads_neither_ray_nor_torch() -> None:
    heavy = "('ray', 'torch', 'sklearn', 'mlflow')"
    seen = f"import sys, jobs.explain, json; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert json.loads(done.stdout) == []
