"""Runs in MLflow, found again by our own key: a resumed run continues its run, and never makes a second one.

    run (parent) ─┬─ round 0        key = <run>/round-0
                  ├─ round 1 ...
                  └─ trial 0 ...     of a search

Tracking is a witness, not a worker: when the server is away it warns once, and the run goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "orchestrator.key"
PARENT = "mlflow.parentRunId"
_LONGEST_PARAM = 500  # characters MLflow keeps of a value in every store


class Tracker:
    """One experiment of an MLflow store."""

    def __init__(self, client: MlflowClient, experiment_id: str, uri: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self.uri = uri

    def run(self, key: str, name: str, *, parent: str | None = None) -> str:
        """Id of the run with this key, made when there is none."""
        found = self._client.search_runs([self._experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {KEY: key} | ({PARENT: parent} if parent else {})
        return str(self._client.create_run(self._experiment_id, run_name=name, tags=tags).info.run_id)

    def params(self, run: str, settings: Mapping[str, Any]) -> None:
        """Flattened settings; a key that is there already stays as it is."""
        from mlflow.entities import Param

        known = self._client.get_run(run).data.params
        fresh = {key: str(value)[:_LONGEST_PARAM] for key, value in flatten(settings).items() if key not in known}
        entries = [Param(key, value) for key, value in fresh.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(run, params=entries[start : start + 100])

    def metrics(self, run: str, values: Mapping[str, float], *, step: int = 0) -> None:
        """Metrics of one step in one call; those that are there already are not told twice."""
        from mlflow.entities import Metric

        told = {
            (key, m.step) for key in self._client.get_run(run).data.metrics for m in self._client.get_metric_history(run, key)
        }
        fresh = [Metric(key, float(value), 0, step) for key, value in values.items() if (key, step) not in told]
        if fresh:
            self._client.log_batch(run, metrics=fresh)

    def artifact(self, run: str, path: Path) -> None:
        """A file or directory of the run."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(run, str(path), *((path.name,) if path.is_dir() else ()))

    def close(self, run: str, status: str = "FINISHED") -> None:
        """The run has ended."""
        self._client.set_terminated(run, status)

    def champion(self, model: str, run: str, artifact: str) -> None:
        """Register a run's artifact directory as the model's newest version, under the alias `champion`. Idempotent."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self._client.search_model_versions(f"name = '{model}' and run_id = '{run}'")
        source = f"{self._client.get_run(run).info.artifact_uri}/{artifact}"
        version = versions[0] if versions else self._client.create_model_version(model, source, run)
        self._client.set_registered_model_alias(model, "champion", version.version)


def open_tracker(uri: str | None, experiment: str, store: Path) -> Tracker:
    """A tracker on `uri`, or on a SQLite file in the store."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # seven retries would stall a run for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import logging

    from mlflow import MlflowClient  # three seconds; only where runs are told

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    store.mkdir(parents=True, exist_ok=True)
    uri = uri or f"sqlite:///{store / 'mlflow.db'}"
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    local = (store / "mlflow-artifacts").as_uri() if uri.startswith("sqlite:") else None
    identity = found.experiment_id if found else client.create_experiment(experiment, artifact_location=local)
    return Tracker(client, str(identity), uri)


@contextmanager
def witnessed() -> Iterator[None]:
    """Tell MLflow what happened; when it cannot be reached, say so and go on."""
    try:
        yield
    except Exception as error:
        from mlflow.exceptions import MlflowException

        if not isinstance(error, MlflowException | OSError):
            raise
        print(f"warning: MLflow could not be told ({error}); run the same command again to complete it", file=sys.stderr)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("_target_", "class")
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
