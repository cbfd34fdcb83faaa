"""MLflow is told everything once, and never in the way."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.stores.runs import flatten
from orchestrator.stores.tracking import KEY, OUTBOX, PARENT, Outbox, Tracker, open_tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def look(tracker: Tracker) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri)


def runs(tracker: Tracker) -> dict[str, Run]:
    """Runs by key; fails on two of one key."""
    client = look(tracker)
    experiment = client.get_experiment_by_name("emotion")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    by_key = {run.data.tags[KEY]: run for run in found}
    assert len(by_key) == len(found)
    return by_key


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")  # one database: MLflow takes seconds to make one


@pytest.fixture
def tracker(store: Path) -> Tracker:
    return open_tracker(None, "emotion", store)


def tell(tracker: Tracker, key: str) -> None:
    parent = tracker.run(key, "toy", tags={"verdict": "promoted"})
    tracker.params(parent, {"fusion": {"_target_": "orchestrator.Head", "dropout": 0.1}, "long": "x" * 2000, "odd key{}": 1})
    for index in (0, 1):
        child = tracker.run(f"{key}/round-{index}", f"round {index}", parent=parent)
        tracker.metrics(child, {"val_waf": 0.5 + index, "nothing": math.nan}, step=index)
        tracker.close(child)
    tracker.close(parent)


def check(tracker: Tracker, key: str) -> None:
    found = runs(tracker)
    parent, child = found[key], found[f"{key}/round-1"]
    assert parent.data.params["fusion.dropout"] == "0.1"
    assert parent.data.params["fusion.class"] == "orchestrator.Head"
    assert parent.data.params["odd key__"] == "1"
    assert len(parent.data.params["long"]) == 500
    assert parent.data.params["long"].endswith("(2000 characters)")
    assert parent.data.tags["verdict"] == "promoted"
    assert child.data.tags[PARENT] == parent.info.run_id
    assert child.data.metrics["val_waf"] == 1.5
    assert [metric.step for metric in look(tracker).get_metric_history(child.info.run_id, "val_waf")] == [1]
    assert parent.info.status == child.info.status == "FINISHED"


def test_a_run_its_rounds_and_settings_are_told(tracker: Tracker) -> None:
    tell(tracker, "told")
    check(tracker, "told")
    assert tracker.pending == 0


def test_a_resumed_run_is_told_once(tracker: Tracker, store: Path) -> None:
    tell(tracker, "resumed")
    again = open_tracker(None, "emotion", store)
    again.run("resumed", "toy")
    assert runs(again)["resumed"].info.status == "RUNNING"
    tell(again, "resumed")
    again.metrics("resumed/round-1", {"val_waf": 9.0, "late": 3.0}, step=1)
    check(again, "resumed")
    assert runs(again)["resumed/round-1"].data.metrics["late"] == 3.0


def test_a_key_with_quotes_is_one_run(tracker: Tracker, store: Path) -> None:
    key = tracker.run('it\'s `a` "key"', "quotes")
    open_tracker(None, "emotion", store).run(key, "quotes")
    tracker.metrics(key, {"waf": 0.5})
    assert runs(tracker)["it_s _a_ _key_"].data.metrics == {"waf": 0.5}


def test_the_champion_points_at_plain_files(tracker: Tracker, tmp_path: Path) -> None:
    weights = tmp_path / "f1"
    weights.mkdir()
    (weights / "weights.safetensors").write_bytes(b"\0" * 8)
    (tmp_path / "report.html").write_text("<p>")
    for key in ("first", "second", "second"):
        tracker.run(key, key)
        tracker.artifact(key, weights)
        tracker.artifact(key, tmp_path / "report.html")
        tracker.champion("toy/model", key, "f1")
    champion = look(tracker).get_model_version_by_alias("toy_model", "champion")
    assert int(champion.version) == 2
    assert champion.run_id == runs(tracker)["second"].info.run_id
    listed = {file.path for file in look(tracker).list_artifacts(champion.run_id)}
    assert listed == {"f1", "report.html"}
    assert (Path(champion.source.removeprefix("file://")) / "weights.safetensors").read_bytes() == b"\0" * 8


@pytest.fixture
def dead_server() -> Iterator[str]:
    """A port that accepts and never answers: the worst a server can do."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_never_answers_costs_seconds_once(
    dead_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    tracker = open_tracker(dead_server, "emotion", tmp_path)
    started = time.monotonic()
    tell(tracker, "dead")
    first = time.monotonic() - started
    tell(tracker, "dead again")
    assert first < 10
    assert time.monotonic() - started - first < 0.5
    assert tracker.pending == 18
    assert capsys.readouterr().err.count("could not be told") == 1


def test_what_could_not_be_told_is_told_at_the_next_contact(tmp_path: Path, store: Path) -> None:
    folder = tmp_path / "mounted"
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    folder.write_text("nothing is mounted here")
    away = open_tracker(uri, "emotion", tmp_path)
    tell(away, "late")
    open_tracker(uri, "another experiment", tmp_path).run("foreign", "foreign")
    assert away.pending == 10
    folder.unlink()
    folder.mkdir()
    (folder / "mlflow.db").write_bytes((store / "mlflow.db").read_bytes())  # migrated already: saves seconds
    tracker = open_tracker(uri, "emotion", tmp_path)
    tracker.run("later", "later")
    check(tracker, "late")
    assert "later" in runs(tracker)
    assert [told["run"] for told in Outbox(tmp_path / OUTBOX).read()] == ["foreign"]


def test_a_statement_that_is_refused_for_good_does_not_block_the_rest(
    tracker: Tracker, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker.run("refused", "refused")
    tracker.close("refused", "NO SUCH STATUS")
    tracker.metrics("refused", {"waf": 0.5})
    assert runs(tracker)["refused"].data.metrics == {"waf": 0.5}
    assert tracker.pending == 0
    assert "refuses close" in capsys.readouterr().err


def test_a_line_cut_short_by_a_crash_costs_only_itself(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / OUTBOX)
    outbox.append({"run": "a"})
    with outbox.path.open("a") as file:
        file.write(json.dumps({"run": "b"})[:-3])
    outbox.append({"run": "c"})
    assert [told["run"] for told in outbox.read()] == ["a", "c"]


def test_nested_settings_become_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "_target_": "x"}, "d": [1, 2]}) == {"a.b.c": 1, "a.class": "x", "d": [1, 2]}
