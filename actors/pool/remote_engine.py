"""An engine in an actor of its own, as the pool reaches it: how it is started, asked, closed and killed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ray.exceptions import ActorUnavailableError, ObjectLostError, RayError, RayTaskError

from actors.cluster import remote
from actors.cluster.causes import cause_of, death_of, describe_cause
from actors.cluster.logs import log_tail
from actors.cluster.waiting import look_at, within
from actors.cluster.weights import SharedWeights
from actors.cluster.whereabouts import Whereabouts
from actors.pool.engine_actor import EngineActor, engine_environment
from rlaif.config.schema import PoolSettings
from rlaif.errors import EngineError, RlaifError, TrainerLostError, WaitTimeoutError, WeightSyncError
from rlaif.places.traffic import Traffic
from rlaif.sizes.phases import engine_resources

ENGINE_CLOSE_TIMEOUT_S = 10.0
NODE_POLL_S = 2.0
BUCKETS_AT_ONCE = 2  #: of new weights, on their way to an engine or being loaded there
OPENING_POLL_S = 5.0
UNAVAILABLE_S = 5.0  #: before an actor that could not be reached is asked again


class RemoteEngine:
    """An actor that has opened its engine. ``start_engine`` makes it."""

    def __init__(self, name: str, handle: Any, group: Any, where: Whereabouts, settings: PoolSettings) -> None:
        self.name = name
        self.where = where
        self._handle = handle
        self._group = group
        self._settings = settings

    def __str__(self) -> str:
        return f"{self.name} on {self.where}"

    def run(self, task: Any, rows: Sequence[Any]) -> Any:
        """A Ray stream of references to lists of ``actors.pool.shipment.Finished``, for ``task`` on all ``rows``."""
        return self._handle.run.options(num_returns="streaming").remote(task, list(rows))

    async def update_weights(self, weights: SharedWeights) -> None:
        """Serve these weights from now on, and prove it.

        Each step has ``idle_timeout_s``: to stop for them, every bucket, and the proof. While one bucket is loaded, the
        next one is on its way to the engine's node.

        Raises WeightSyncError when the engine refuses them and TrainerLostError when they are lost with the node that
        had them; EngineError, WaitTimeoutError or the RayActorError of its death when the engine must be replaced.
        """
        what = f"{self} to serve weights of version {weights.version}"
        try:
            await self._within_limit(self._handle.begin_weights.remote(weights.header), what)
            await self._send_buckets(weights)
            await self._within_limit(self._handle.serve_weights.remote(), what)
        except RayTaskError as error:
            cause = cause_of(error)
            if isinstance(cause, ObjectLostError):
                raise TrainerLostError(f"weights {weights.version} are lost: {death_of(cause)}") from error
            kind = EngineError if isinstance(cause, EngineError | WaitTimeoutError) else WeightSyncError
            raise kind(f"{self}: {cause}") from error

    async def _send_buckets(self, weights: SharedWeights) -> None:
        """Engines load them one at a time, in any order."""
        number = len(weights.buckets)
        on_their_way: deque[Any] = deque()
        for place, bucket in enumerate(weights.buckets, 1):
            what = f"{self} to load bucket {{}} of {number} of the weights of version {weights.version}"
            if len(on_their_way) == BUCKETS_AT_ONCE:
                await self._within_limit(on_their_way.popleft(), what.format(place - BUCKETS_AT_ONCE))
            on_their_way.append(self._handle.load_weights.remote(bucket))
        while on_their_way:
            await self._within_limit(on_their_way.popleft(), what.format(number - len(on_their_way)))

    async def _within_limit(self, answer: Any, what: str) -> None:
        await within(self._settings.idle_timeout_s, answer, what)

    async def prefix_hits(self) -> tuple[int, int]:
        """As ``rlaif.interfaces.Engine.prefix_hits``; (0, 0) when the engine has just died."""
        try:
            return await within(ENGINE_CLOSE_TIMEOUT_S, self._handle.prefix_hits.remote(), f"{self} to count")
        except (RayError, WaitTimeoutError):
            return 0, 0

    async def until_death(self) -> str:
        """Wait until the actor dies; returns the cause."""
        while True:
            try:
                await self._handle.stay.remote()
            except ActorUnavailableError:  # unreachable, perhaps alive: asked again, it answers or is known to be dead
                await asyncio.sleep(UNAVAILABLE_S)
            except RayError as error:
                return death_of(error)

    async def loses_node(self, within_s: float) -> bool:
        """Whether the node of this dead engine is known to be dead, too, within so many seconds: its processes may be
        reported first. The driver's own node is not lost before the driver is."""
        deadline = time.monotonic() + within_s
        while remote.is_alive(self.where.node_id):
            if self.where.node_id == remote.this_node() or time.monotonic() >= deadline:
                return False
            await asyncio.sleep(NODE_POLL_S)
        return True

    async def close(self) -> None:
        """Close the engine if its actor still answers, and end its process."""
        try:
            with contextlib.suppress(RayError, RlaifError):
                await within(ENGINE_CLOSE_TIMEOUT_S, self._handle.close.remote(), f"{self} to close")
        finally:
            self.kill()

    def kill(self) -> None:
        _end(self._handle, self._group)


def _end(handle: Any, group: Any) -> None:
    if handle is not None:
        remote.kill_actor(handle)
    if group is not None:
        remote.release(group)


def _place(settings: PoolSettings) -> tuple[Any, dict[str, Any]]:
    """The placement group (None for an engine of one rank) and the actor's options.

    A tensor-parallel engine gets one bundle per rank; its actor holds none of the GPUs itself, because the engine's
    own workers are placed in the bundles.
    """
    if settings.tensor_parallel == 1:
        options = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "resources": dict(settings.placement)}
        return None, options
    ranks = settings.tensor_parallel
    each = {"CPU": settings.cpus / ranks, "GPU": settings.gpus}
    each |= {name: amount / ranks for name, amount in settings.placement.items()}
    group = remote.reserve([each] * ranks)
    return group, {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": remote.within_group(group)}


async def start_engine(name: str, role: str, model: str, settings: PoolSettings) -> RemoteEngine:
    """Start an actor and open its engine.

    Raises EngineError or WaitTimeoutError with the cause and the end of the actor's log.
    """
    group, options = _place(settings)
    handle: Any = None
    where: Whereabouts | None = None
    try:
        handle = remote.start_actor(
            EngineActor,
            name=name,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=settings.max_in_flight + 16,
            runtime_env={"env_vars": engine_environment(settings)},
            **options,
        )
        needs = f"{name} to be scheduled (it needs {engine_resources(settings)})"
        where = await within(settings.start_timeout_s, handle.whereabouts.remote(), needs)
        opening = asyncio.ensure_future(handle.open.remote(role, model, settings))
        await _opened(opening, handle, settings.start_timeout_s, f"{name} on {where} to open {model}")
    except (RayError, RlaifError) as error:
        _end(handle, group)
        raise await _start_failure(name, model, where, error) from error
    except BaseException:
        _end(handle, group)
        raise
    assert where is not None
    return RemoteEngine(name, handle, group, where, settings)


async def _opened(opening: asyncio.Future[None], handle: Any, silence_s: float, what: str) -> None:
    """Wait for ``opening``, however long it takes. Raises what it raises, and WaitTimeoutError when for ``silence_s``
    the actor has moved no bytes, or not answered; the time in which it waits for its turn on a GPU does not count."""
    opening.add_done_callback(look_at)
    traffic: Traffic | None = None
    pause = min(OPENING_POLL_S, silence_s / 4)
    try:
        while not (await asyncio.wait([opening], timeout=pause))[0]:
            moved: int | None = await within(silence_s, handle.moved_bytes.remote(), what)
            traffic = traffic or Traffic(moved) if moved is not None else None
            if traffic and moved is not None and traffic.silence(moved) > silence_s:
                raise WaitTimeoutError(f"waited for {what}, which has read nothing for {silence_s:g} s")
    finally:
        opening.cancel()  # does nothing when it is done
    opening.result()


async def _start_failure(
    name: str, model: str, where: Whereabouts | None, error: BaseException
) -> EngineError | WaitTimeoutError:
    log = await log_tail(where) if where else ""
    if isinstance(error, WaitTimeoutError):
        return WaitTimeoutError(f"{error}{log}")
    place = f" on {where}" if where else ""
    return EngineError(f"{name}{place} could not open {model}: {describe_cause(error)}{log}")
