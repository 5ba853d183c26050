"""One engine of a pool as the driver sees it: starting its actor, its load, its log, its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.cluster.causes import cause_of, death_of
from actors.cluster.logs import log_tail
from actors.cluster.placement import engine_resources
from actors.cluster.waiting import within
from actors.cluster.weights import SharedWeights
from actors.cluster.whereabouts import Whereabouts
from actors.pool.engine_actor import EngineActor, engine_environment
from rlaif.config.schema import PoolSettings
from rlaif.errors import EngineError, RlaifError, TrainerLostError, WaitTimeoutError, WeightSyncError

CLOSE_TIMEOUT_S = 10.0


class Member:
    """An engine actor that has opened its engine. ``holds``: rows sent to it and not returned."""

    def __init__(self, name: str, handle: Any, group: Any, where: Whereabouts, settings: PoolSettings) -> None:
        self.name = name
        self.handle = handle
        self.where = where
        self.holds = 0
        self.draining = False  #: leaves when its rows are done
        self.isolated = False  #: holds suspects alone
        self.lost_with_node = False
        self.last_return = time.monotonic()
        self.cause: str | None = None  #: why the pool killed it, where it did
        self._group = group
        self._settings = settings

    def __str__(self) -> str:
        return f"{self.name} on {self.where}"

    @property
    def takes_rows(self) -> bool:
        return not self.draining and not self.isolated and self.cause is None

    def load(self, rows: int) -> None:
        if self.holds == 0:
            self.last_return = time.monotonic()
        self.holds += rows

    def unload(self, rows: int) -> None:
        self.holds -= rows
        self.isolated = self.isolated and self.holds > 0
        self.last_return = time.monotonic()

    def idle_s(self) -> float:
        """Seconds since the last row came back, 0 when it holds none."""
        return time.monotonic() - self.last_return if self.holds else 0.0

    async def update_weights(self, weights: SharedWeights) -> None:
        """Raises WeightSyncError when the engine refuses them, TrainerLostError when they are gone with the node that
        had them; when the engine is of no use, EngineError, WaitTimeoutError or the RayActorError of its death."""
        what = f"{self} to serve weights of version {weights.version}"
        try:
            await within(self._settings.idle_timeout_s, self.handle.update_weights.remote(weights.ref), what)
        except RayTaskError as error:
            cause = cause_of(error)
            if isinstance(cause, ObjectLostError):
                raise TrainerLostError(f"weights {weights.version} are lost: {death_of(cause)}") from error
            kind = EngineError if isinstance(cause, EngineError | WaitTimeoutError) else WeightSyncError
            raise kind(f"{self}: {cause}") from error

    async def prefix_hits(self) -> tuple[int, int]:
        """(0, 0) of an engine that has just died."""
        try:
            return await within(CLOSE_TIMEOUT_S, self.handle.prefix_hits.remote(), f"{self} to count")
        except (RayError, WaitTimeoutError):
            return 0, 0

    async def close(self) -> None:
        """Close the engine if it still listens, and end its process."""
        with contextlib.suppress(RayError, RlaifError):
            await within(CLOSE_TIMEOUT_S, self.handle.close.remote(), f"{self} to close")
        self.kill()

    def kill(self) -> None:
        _end(self.handle, self._group)

    def node_alive(self) -> bool:
        return any(node["NodeID"] == self.where.node_id and node["Alive"] for node in ray.nodes())


def _end(handle: Any, group: Any) -> None:
    ray.kill(handle)
    if group is not None:
        remove_placement_group(group)


def _place(settings: PoolSettings) -> tuple[Any, dict[str, Any]]:
    """The placement group (None for an engine of one rank) and the actor's options.

    A tensor-parallel engine gets one bundle a rank; its actor holds none of the GPUs itself, because the engine's
    own workers are placed in the bundles.
    """
    if settings.tensor_parallel == 1:
        options = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "resources": dict(settings.placement)}
        return None, options
    ranks = settings.tensor_parallel
    each = {"CPU": settings.cpus / ranks, "GPU": settings.gpus}
    each |= {name: amount / ranks for name, amount in settings.placement.items()}
    group = placement_group([each] * ranks, strategy="PACK")
    strategy = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    return group, {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": strategy}


async def start_member(name: str, role: str, model: str, settings: PoolSettings) -> Member:
    """Start an actor, open its engine. Raises EngineError with the cause and the tail of the actor's log."""
    group, options = _place(settings)
    actor = ray.remote(EngineActor).options(
        name=name,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=settings.max_in_flight + 16,
        runtime_env={"env_vars": engine_environment(settings)},
        **options,
    )
    handle = actor.remote()
    where: Whereabouts | None = None
    deadline = time.monotonic() + settings.start_timeout_s
    try:
        needs = f"{name} to be scheduled (it needs {engine_resources(settings)})"
        where = await within(settings.start_timeout_s, handle.whereabouts.remote(), needs)
        opening = handle.open.remote(role, model, settings)
        await within(max(1.0, deadline - time.monotonic()), opening, f"{name} on {where} to open {model}")
    except (RayError, RlaifError) as error:
        _end(handle, group)
        raise await _start_failure(name, model, where, error) from error
    except asyncio.CancelledError:
        _end(handle, group)
        raise
    assert where is not None
    return Member(name, handle, group, where, settings)


async def _start_failure(
    name: str, model: str, where: Whereabouts | None, error: BaseException
) -> EngineError | WaitTimeoutError:
    log = await log_tail(where) if where else ""
    if isinstance(error, WaitTimeoutError):
        return WaitTimeoutError(f"{error}{log}")
    cause = cause_of(error)
    said = death_of(error) if isinstance(cause, RayError) else f"{type(cause).__name__}: {cause}"
    place = f" on {where}" if where else ""
    return EngineError(f"{name}{place} could not open {model}: {said}{log}")
