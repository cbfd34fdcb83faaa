"""Search and ablation: many short runs over the same features, none run twice, one that fails names itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.cluster.ablate import Row, ablate
from orchestrator.cluster.corpus import gather
from orchestrator.cluster.search import draw, search
from orchestrator.cluster.trials import Trial
from orchestrator.reports.ablation import ablation_rows
from orchestrator.vocabulary import Predictions, PseudoLabels
from tests.cluster.conftest import MakeExperiment

pytestmark = pytest.mark.cluster
SHORT = ("rounds.rounds=1", "fusion.min_steps=20", "fusion.epochs=2")


@dataclass(frozen=True, slots=True)
class Breaks:
    """A policy that cannot choose."""

    why: str = "no such column"

    def select(self, pool: Predictions, *, judged: Predictions, truth: NDArray[np.int64], round_index: int) -> PseudoLabels:
        raise ValueError(self.why)


def test_the_same_seed_draws_the_same_settings() -> None:
    space = {"a": [0.0, 1.0], "b": [1, 2, 3], "c": ["x", "y"], "d": [True, False]}
    drawn = draw(space, 50, seed=3)
    assert drawn == draw(space, 50, seed=3)
    assert all(0 <= float(one["a"]) <= 1 for one in drawn)  # type: ignore[arg-type]
    assert {one["b"] for one in drawn} == {1, 2, 3}
    assert {one["c"] for one in drawn} == {"x", "y"}
    assert {one["d"] for one in drawn} == {True, False}


def test_a_trial_that_fails_names_itself_and_takes_no_other_with_it(
    cluster: None, make_experiment: MakeExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [make_experiment(*SHORT, "selection=fixed", f"selection.threshold={t}") for t in (0.3, 0.5)]
    bad = replace(good[0], selection=Breaks())
    corpus = gather(good[0])
    trials = [Trial({"threshold": 0.3}, good[0]), Trial({"threshold": "broken"}, bad), Trial({"threshold": 0.5}, good[1])]
    done = search(good[0], trials, corpus)
    out = capsys.readouterr().out
    assert [trial.setting["threshold"] for trial in done][2] == "broken"
    assert "no such column" in done[2].failure
    assert "trial threshold=broken failed" in out
    assert [len(trial.records) for trial in done[:2]] == [2, 2]
    assert done[0].best.val_f1 >= done[1].best.val_f1

    before = {path: path.stat().st_mtime_ns for path in (good[0].store / "fusion").iterdir()}
    again = search(good[0], [trials[0], trials[2]], corpus)
    assert "resuming: 2 of 2 trials found" in capsys.readouterr().out
    assert [trial.records for trial in again] == [trial.records for trial in done[:2]]
    assert {path: path.stat().st_mtime_ns for path in (good[0].store / "fusion").iterdir()} == before


def test_an_ablation_is_found_again_and_pairs_its_seeds(
    cluster: None, make_experiment: MakeExperiment, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Row("modalities: all", make_experiment(*SHORT, "rounds.rounds=0")),
        Row("modalities: video", make_experiment(*SHORT, "rounds.rounds=0", "audio=none", "text=none")),
        Row("rounds: 0", make_experiment(*SHORT, "rounds.rounds=0")),
        Row("rounds: 1", make_experiment(*SHORT, "selection=fixed", "selection.threshold=0.01", "rounds.rounds=1")),
    ]
    tables, trials = ablate(rows, 2)
    assert [(table.title, list(table.rows)) for table in tables] == [("modalities", ["all", "video"]), ("rounds", ["0", "1"])]
    assert [trial.failure for trial in trials] == [""] * 8
    assert tables[0].rows["all"] == tables[1].rows["0"]
    one, other = tables[0].rows["all"]
    assert one != other  # another seed
    alone = tables[0].rows["video"][0]
    assert alone is not None
    assert list(alone.out_of_fold) == ["V"]
    assert "resuming: features of 60 clips found" in capsys.readouterr().out
    again, _ = ablate(rows, 2)
    assert "resuming: 8 of 8 trials found" in capsys.readouterr().out
    assert [ablation_rows(table) for table in again] == [ablation_rows(table) for table in tables]
