"""Join or start a Ray cluster, and say which.

A private cluster is started unless an address is given or the process runs inside a submitted job: `ray.init()` alone may join
a stranger's cluster on the same machine. A private cluster listens on loopback alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._private import ray_constants

from orchestrator.errors import ClusterFailed, ConfigError, OrchestratorError
from orchestrator.settings import ClusterSettings

# One thread an actor: sums of floats come out the same on any machine size; width comes from more actors.
WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it says every line twice
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # that a fit is done is noticed at the next check
    "RAY_LOGGER_LEVEL": "error",  # without a dashboard Ray Train warns every second that it cannot ask one
}


@contextmanager
def session(settings: ClusterSettings) -> Iterator[None]:
    """A Ray session for the length of a job; a session that stands already is used and left standing.

    Raises ConfigError when a private cluster can never hold what is asked for, ClusterFailed when Ray gives up on what runs
    inside; an error meant for the user comes through from any worker.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keep CUDA_VISIBLE_DEVICES of 0-GPU actors as it is
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it warns that access is guarded
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    if local:
        os.environ.update(WORKER_ENV, RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0")  # this machine is not taken away node by node
        _keep_to_loopback()
    context = ray.init(
        address=address,
        num_cpus=settings.cpus if local else None,
        include_dashboard=False if local else None,
        runtime_env=None if local else {"env_vars": WORKER_ENV},
        logging_level=logging.WARNING,
    )
    resources = ray.cluster_resources()
    kind = "a private Ray cluster" if local else f"the Ray cluster at {context.address_info.get('gcs_address', address)}"
    print(f"running on {kind}: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs", flush=True)
    try:
        if local:
            _check_room(settings, resources)
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, OrchestratorError):
            raise cause from None
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise ClusterFailed(
            f"{told[-1]}\nWhat was finished is kept: run the same command again and it goes on from there."
        ) from error
    finally:
        ray.shutdown()


def _check_room(settings: ClusterSettings, resources: Mapping[str, float]) -> None:
    """Raises ConfigError for what would wait for ever: a private cluster does not grow."""
    pools, gpus = settings.pools.values(), settings.gpus_per_fit_worker
    asked = [
        (f"cluster.fit_workers={settings.fit_workers}", "GPU" if gpus else "CPU", settings.fit_workers * (gpus or 1.0)),
        ("cluster.pools with cluster.decode_cpus", "CPU", settings.decode_cpus + sum(p.min_actors * p.cpus for p in pools)),
        ("cluster.pools", "GPU", sum(p.min_actors * p.gpus for p in pools)),
    ]
    for key, kind, wanted in asked:
        if wanted > (there := resources.get(kind, 0.0)) + 1e-6:
            raise ConfigError(
                f"{key} asks for {wanted:g} {kind}s at once, the private cluster on this machine has {there:g}: "
                f"ask for less{', raise cluster.cpus,' if kind == 'CPU' else ''} or join a cluster with cluster.address"
            )


def _keep_to_loopback() -> None:
    """On Linux Ray binds to every interface; this is its switch, meant for laptops of other makers, to bind to loopback."""
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for the processes it starts
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which has read the variable already
