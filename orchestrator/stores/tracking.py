"""Runs in MLflow, found again by our own key: a resumed run continues its run, and never makes a second one.

    run (parent) ─┬─ round 0        key = <run>/round-0
                  ├─ round 1 ...
                  └─ trial 0 ...     of a search

Tracking is a witness, not a worker. What a server cannot be told now is kept in an outbox beside the store and told first at the
next contact; a server that does not answer is left alone for a minute. So every statement names its run by key, says when it was
true, and may be made twice. The only module that imports mlflow, and only once something is told: the import takes 3 s.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.stores.runs import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY = "orchestrator.key"
PARENT = "mlflow.parentRunId"
OUTBOX = "mlflow-outbox.jsonl"
_LONGEST_VALUE = 500  # characters MLflow keeps of a parameter in every store
_LONGEST_KEY = 250
_SILENCE_S = 60.0
_NEVER = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}  # told again, it would be refused again
Statement = dict[str, Any]


class Tracker:
    """One experiment of an MLflow store. Runs go by key; no call raises because the server is away."""

    def __init__(self, uri: str, experiment: str, store: Path) -> None:
        self.uri = uri
        self._experiment = experiment
        self._artifacts = (store / "mlflow-artifacts").as_uri() if uri.startswith("sqlite:") else None
        self._outbox = Outbox(store / OUTBOX)
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._ids: dict[str, str] = {}  # run id by key
        self._told: dict[str, set[tuple[str, int]]] = {}  # (metric, step) by run id
        self._silent_until = 0.0
        self._warned = False

    def run(self, key: str, name: str, *, parent: str | None = None, tags: Mapping[str, str] | None = None) -> str:
        """The run with this key, made when there is none, open again when it had ended. Returns the key."""
        self._tell("run", key, name=name, parent=parent and _quotable(parent), tags=dict(tags or {}))
        return key

    def params(self, run: str, settings: Mapping[str, Any]) -> None:
        """Flattened settings; a key that is there already stays as it is, a long value is clipped and says so."""
        self._tell("params", run, values={_legal(key): _clipped(str(value)) for key, value in flatten(settings).items()})

    def metrics(self, run: str, values: Mapping[str, float], *, step: int = 0) -> None:
        """Metrics of one step in one call; those that are there already are not told twice."""
        told = {_legal(key): float(value) for key, value in values.items()}
        self._tell("metrics", run, values=told, step=step, time_ms=int(time.time() * 1000))

    def artifact(self, run: str, path: Path) -> None:
        """A file or directory of the run."""
        self._tell("artifact", run, path=str(path.resolve()))

    def close(self, run: str, status: str = "FINISHED") -> None:
        """The run has ended."""
        self._tell("close", run, status=status, time_ms=int(time.time() * 1000))

    def champion(self, model: str, run: str, artifact: str) -> None:
        """Register a run's artifact directory as the model's newest version, under the alias `champion`.

        The directory stays what it is, safetensors and JSON: no MLflow flavour, so nothing of it is ever unpickled.
        """
        self._tell("champion", run, model=_legal(model), artifact=artifact)

    @property
    def pending(self) -> int:
        """Statements the server has yet to be told."""
        return len(self._outbox.read())

    def flush(self) -> bool:
        """Tell the server what the outbox holds, in order; whether all of it is told."""
        mine: list[Statement] = []
        foreign: list[Statement] = []
        done = 0
        with self._outbox.held() as kept:
            for told in kept:
                (mine if (told["uri"], told["experiment"]) == (self.uri, self._experiment) else foreign).append(told)
            while done < len(mine) and self._try(mine[done]):
                done += 1
            kept[:] = foreign + mine[done:]
        return done == len(mine)

    def _tell(self, what: str, run: str, **about: Any) -> None:
        told = {"uri": self.uri, "experiment": self._experiment, "what": what, "run": _quotable(run), **about}
        answers = time.monotonic() >= self._silent_until
        if not (answers and (not self._outbox.path.exists() or self.flush()) and self._try(told)):
            self._outbox.append(told)

    def _try(self, told: Statement) -> bool:
        """Whether a statement is settled: told, or refused for good. Otherwise the server is left alone for a while."""
        import_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._actions()[told["what"]](told)
        except Exception as error:  # whatever goes wrong in a witness, the run goes on
            away = isinstance(error, MlflowException | SQLAlchemyError | OSError)
            if not away or getattr(error, "error_code", None) in _NEVER:
                _warn(f"MLflow refuses {told['what']} of {told['run']}: {_short(error)}")
                return True
            self._silent_until = time.monotonic() + _SILENCE_S
            if not self._warned:
                _warn(f"MLflow at {self.uri} could not be told ({_short(error)}); kept in {self._outbox.path}, told later")
            self._warned = True
            return False
        return True

    def _actions(self) -> Mapping[str, Callable[[Statement], None]]:
        return {
            "run": self._open_run,
            "params": self._log_params,
            "metrics": self._log_metrics,
            "artifact": self._log_artifact,
            "close": self._close_run,
            "champion": self._register,
        }

    def _open_run(self, told: Statement) -> None:
        client = self._connected()
        found = self._find(told["run"])
        if found is None:
            tags = {KEY: told["run"], **told["tags"]} | ({PARENT: self._id(told["parent"])} if told["parent"] else {})
            found = client.create_run(self._experiment_id, run_name=told["name"], tags=tags)
            self._told[found.info.run_id] = set()
        elif found.info.status != "RUNNING":
            client.update_run(found.info.run_id, status="RUNNING")
        self._ids[told["run"]] = found.info.run_id

    def _log_params(self, told: Statement) -> None:
        from mlflow.entities import Param

        client, run = self._connected(), self._id(told["run"])
        known = client.get_run(run).data.params
        fresh = [Param(key, value) for key, value in told["values"].items() if key not in known]
        for start in range(0, len(fresh), 100):  # as many as MLflow takes at once
            client.log_batch(run, params=fresh[start : start + 100])

    def _log_metrics(self, told: Statement) -> None:
        from mlflow.entities import Metric

        client, run, step = self._connected(), self._id(told["run"]), told["step"]
        if run not in self._told:  # a run found again
            keys = client.get_run(run).data.metrics
            self._told[run] = {(key, metric.step) for key in keys for metric in client.get_metric_history(run, key)}
        fresh = [(key, value) for key, value in told["values"].items() if (key, step) not in self._told[run]]
        for start in range(0, len(fresh), 1000):
            part = [Metric(key, value, told["time_ms"], step) for key, value in fresh[start : start + 1000]]
            client.log_batch(run, metrics=part)
        self._told[run] |= {(key, step) for key, _ in fresh}

    def _log_artifact(self, told: Statement) -> None:
        path = Path(told["path"])
        if not path.exists():
            _warn(f"{path} is gone: MLflow's run {told['run']} stays without it")
        elif path.is_dir():
            self._connected().log_artifacts(self._id(told["run"]), str(path), path.name)
        else:
            self._connected().log_artifact(self._id(told["run"]), str(path))

    def _close_run(self, told: Statement) -> None:
        self._connected().set_terminated(self._id(told["run"]), told["status"], told["time_ms"])

    def _register(self, told: Statement) -> None:
        from mlflow.exceptions import MlflowException

        client, run, model = self._connected(), self._id(told["run"]), told["model"]
        try:
            client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{client.get_run(run).info.artifact_uri}/{told['artifact']}"
        versions = [v for v in client.search_model_versions(f"name = '{model}'") if (v.run_id, v.source) == (run, source)]
        version = versions[0] if versions else client.create_model_version(model, source, run)
        client.set_registered_model_alias(model, "champion", version.version)

    def _id(self, key: str) -> str:
        if key not in self._ids:
            found = self._find(key)
            if found is None:
                self._open_run({"run": key, "name": key, "parent": None, "tags": {}})
            else:
                self._ids[key] = found.info.run_id
        return self._ids[key]

    def _find(self, key: str) -> Run | None:
        found = self._connected().search_runs([self._experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
        return found[0] if found else None

    def _connected(self) -> MlflowClient:
        """The client, its experiment found or made."""
        if self._client is None:
            from mlflow import MlflowClient

            client = MlflowClient(self.uri)
            found = client.get_experiment_by_name(self._experiment)
            identity = found.experiment_id if found else client.create_experiment(self._experiment, self._artifacts)
            self._client, self._experiment_id = client, str(identity)
        return self._client


class Outbox:
    """Statements a server is yet to be told: one JSON a line. A line that a crash cut short is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Statement]:
        """All statements, oldest first."""
        return _whole_lines(self.path.read_text()) if self.path.exists() else []

    def append(self, told: Statement) -> None:
        """Keep a statement."""
        with self._locked() as file:
            file.seek(0, os.SEEK_END)
            file.write("\n" + json.dumps(told) + "\n")  # whatever a crash left stays on its own line

    @contextmanager
    def held(self) -> Iterator[list[Statement]]:
        """The statements, for nobody else meanwhile; what the list holds at the end is kept."""
        with self._locked() as file:
            kept = _whole_lines(file.read())
            before = len(kept)
            yield kept
            if kept and len(kept) < before:
                staged = self.path.with_suffix(".tmp")
                staged.write_text("".join(json.dumps(told) + "\n" for told in kept))
                staged.replace(self.path)
            elif not kept:
                self.path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self.path.open("a+") as file:
                file.seek(0)
                yield file


def open_tracker(uri: str | None, experiment: str, store: Path) -> Tracker:
    """A tracker on `uri`, or on a SQLite file in the store. Contacts nobody yet."""
    return Tracker(uri or f"sqlite:///{(store / 'mlflow.db').absolute()}", experiment, store)


def import_mlflow() -> None:
    """Import MLflow with time-outs a run can bear: its own are seven tries of two minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import logging

    import mlflow.store.db.utils

    mlflow.store.db.utils.MAX_RETRY_COUNT = 2  # ten tries at a database that is away take three minutes
    for name in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _whole_lines(text: str) -> list[Statement]:
    told = []
    for line in text.splitlines():
        try:
            told.append(json.loads(line))
        except ValueError:
            continue  # cut short by a crash, or empty
    return told


def _clipped(value: str) -> str:
    note = f" ... ({len(value)} characters)"
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - len(note)] + note


def _legal(key: str) -> str:
    """A name MLflow takes for parameters, metrics and models."""
    return re.sub(r"[^\w\-. ]", "_", key)[:_LONGEST_KEY]


def _quotable(key: str) -> str:
    """A key that can stand between quotes in a search."""
    return re.sub(r"['\"`\\]", "_", key)


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
