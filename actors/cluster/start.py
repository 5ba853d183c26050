"""Starting Ray on this machine, or joining a cluster, with a clean shutdown in any case."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.ray_logging import global_worker_stdstream_dispatcher

from actors.cluster.loopback import stay_on_loopback
from rlaif.config.schema import Config, Resources
from rlaif.errors import RunError, UserError

GIB = 1024**3
#: Set in this process and passed on to Ray Train's. Its controller polls twice a second, so that short fits do not
#: wait for it.
RAY_ENVIRONMENT = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
#: Nothing announces preemption on one's own machine; without the watcher there is one process less.
LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
TOKEN = Path("~/.ray/auth_token")
M_ARENA_MAX, NUM_ARENAS = -8, 2  #: of glibc's mallopt


@contextmanager
def open_cluster(config: Config) -> Iterator[str]:
    """Keep Ray for the length of a ``with`` block; yields the cluster's address.

    Without ``resources.address``, Ray is started on this machine (loopback only, no dashboard) with the declared
    resources, which may exceed the real cores: they are shares, not limits. Each run has its own namespace, so that
    several runs can share a cluster. Raises RunError when Ray cannot be started, UserError when it cannot be joined.
    """
    namespace = f"rlaif-{Path(config.run_dir).name}-{secrets.token_hex(4)}"
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    _share_heaps()
    heeds_sigterm = signal.getsignal(signal.SIGTERM)
    if config.resources.address is None:
        _start_local(config.resources, namespace)
    else:
        _join(config.resources.address, namespace)
    signal.signal(signal.SIGTERM, heeds_sigterm)  # Ray has replaced it by one that ends the process
    # Ray would print about every dead process between the progress bars; pools and trainers report those themselves.
    global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def current_namespace() -> str:
    return ray.get_runtime_context().namespace


def nodes() -> list[dict[str, Any]]:
    """The living nodes of the cluster, as Ray lists them: ``NodeID``, ``NodeManagerAddress``, ``Resources``..."""
    return [node for node in ray.nodes() if node["Alive"]]


def _share_heaps() -> None:
    """Let this process's threads share few heaps. With a heap for each, which is glibc's default, memory that Ray's
    threads allocate and ours free is not reused: some 400 bytes leak for each call whose results are streamed."""
    with suppress(AttributeError):  # other C libraries have no mallopt
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, NUM_ARENAS)


def _start_local(resources: Resources, namespace: str) -> None:
    for name, value in LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    stay_on_loopback()
    try:
        with _loopback_only():
            ray.init(
                address="local",
                namespace=namespace,
                num_cpus=max(1, math.ceil(resources.cpus)),
                num_gpus=resources.gpus,
                resources=dict(resources.custom),
                object_store_memory=int(resources.object_store_gib * GIB),
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                _node_ip_address="127.0.0.1",
            )
        hide_token()
    except Exception as error:  # Ray raises a bare Exception when its node is not up within 30 s
        ray.shutdown()
        raise RunError(f"Ray could not be started on this machine: {error}") from error


def hide_token() -> None:
    """Make the token that Ray has written for this user's clusters unreadable for others; Ray leaves that to the
    umask."""
    with suppress(OSError):
        TOKEN.expanduser().chmod(0o600)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make Ray listen on 127.0.0.1 only. Except on desktop systems it would use the host's address instead, and listen
    on every interface."""
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    try:
        yield
    finally:
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]
        ray_constants.ENABLE_RAY_CLUSTER = before


def _join(address: str, namespace: str) -> None:
    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"resources.address={address}: no Ray cluster can be joined there: {error}") from error
