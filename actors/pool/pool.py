"""``EnginePool``: the one way to run inference on a cluster.

    rows ──► PoolCall ──► least-loaded engine ──► finished rows, streamed as lists ──► consumer
              ▲            │ dies, hangs
              └── suspects ┘   (in an engine of their own: a few together, then one at a time)

- *Dispatch* (``actors.pool.dispatch``). The engine that holds fewest rows gets the next ``chunk_rows``; it never holds
  more than ``max_in_flight``. Rows are read only when an engine has room and the consumer keeps up.
- *Death* (``actors.pool.deaths``). An engine is replaced when it dies, at work or idle, or when for ``idle_timeout_s``
  it holds rows and returns none, or does not serve new weights. Its unfinished rows are sent again. A row that was the
  last one in an engine that died, after an earlier engine had died with it, is given back as failed. When a node dies,
  none of its rows is suspected. After many deaths in a row, an engine does a good row once more, which shows whether
  rows or engines are at fault.
- *Size* (``actors.pool.roster``). ``resize`` and, if enabled, ``autoscale``; leavers finish their rows first.
- *Weights.* ``update_weights`` and newcomers take turns, so that every engine that serves, serves the latest version.

Ray itself restarts and retries nothing (``max_restarts=0``): only the pool knows which rows are done.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError, TaskCancelledError

from actors.cluster import remote
from actors.cluster.causes import cause_of, death_of
from actors.cluster.whereabouts import Whereabouts
from actors.pool.autoscale import autoscale
from actors.pool.background import BackgroundTasks
from actors.pool.deaths import Deaths
from actors.pool.dispatch import Dispatch
from actors.pool.member import Member
from actors.pool.roster import Roster
from actors.pool.shipment import Delivery
from rlaif.config.schema import Config, PoolSettings
from rlaif.errors import EngineError, RunError, WaitTimeoutError
from rlaif.interfaces import Done, Record, Row, Task, VersionedWeights


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    """A pool at one moment. ``waiting``: rows that wait to be sent, as far as their sources say how many they have;
    ``unread``: some source may have more. ``done``, ``failed``: rows given back. ``restarts``: engines replaced.
    ``where``: the engines that serve, by name."""

    engines: int
    starting: int
    in_flight: int
    waiting: int
    unread: bool
    done: int
    failed: int
    restarts: int
    where: Mapping[str, Whereabouts]


class EnginePool:
    """Engines of one role, each in an actor of its own. Implements ``rlaif.interfaces.Pool``.

    All methods belong to one asyncio loop. Call ``start`` first and ``close`` last.
    """

    def __init__(
        self,
        role: str,
        model: str,
        settings: PoolSettings,
        *,
        numbers: Iterator[int] | None = None,
        engines: int | None = None,
    ) -> None:
        """``engines``: at the start; None: ``min``."""
        self.role = role
        self._settings = settings
        self._tasks = BackgroundTasks(self._fail)
        self._dispatch = Dispatch(settings)
        self._engines = engines or settings.min
        self.roster = Roster(
            role, model, settings, numbers=numbers, tasks=self._tasks, welcome=self._welcome, size=self._engines
        )
        self._deaths = Deaths(role, settings, self.roster, self._tasks)
        self._failure: RunError | None = None

    # ------------------------------------------------------------------------------------------------- verbs
    async def start(self) -> None:
        """Start the first engines at once. Raises EngineError or WaitTimeoutError when one of them cannot start."""
        await self.roster.hire(self._engines)
        self._tasks.spawn(self._deaths.watch())
        if self._settings.autoscale.enabled:
            self._tasks.spawn(autoscale(self.roster, self._settings, self._dispatch.load))

    async def run(self, task: Task[Row, Record], rows: Iterable[Row]) -> AsyncIterator[list[Done[Row, Record]]]:
        """Run ``task`` on every row next to an engine; each row comes back exactly once, in any order, in lists of
        what came back together.

        Raises EngineError when the pool has no engine left and cannot start one.
        """
        if self._failure:
            raise self._failure
        call = self._dispatch.open(remote.put(task), rows)
        self._send()
        try:
            while (back := await call.next()) is not None:
                if back:
                    yield back
                self._send()
        finally:
            self._dispatch.close(call)
            for stream in call.streams:
                remote.cancel(stream)

    async def resize(self, size: int) -> None:
        """Serve with ``size`` engines, as ``Roster.resize``."""
        await self.roster.resize(size)

    async def update_weights(self, weights: VersionedWeights) -> None:
        """Give every engine the weights and wait until each has proved that it serves them.

        An engine that dies, fails or hangs meanwhile is replaced, and its replacement catches up. Raises
        WeightSyncError naming the engine that refuses them, TrainerLostError when they are lost with the node that had
        them; the pool must not be used afterwards.
        """
        for member, error in await self.roster.update_weights(weights):
            if isinstance(error, RayActorError):
                self._deaths.bury(member, death_of(error), silent=isinstance(error, ActorUnavailableError))
            elif isinstance(error, EngineError | WaitTimeoutError):
                self._deaths.bury(member, str(error), silent=isinstance(error, WaitTimeoutError))
            elif error is not None:
                raise error

    async def prefix_hits(self) -> tuple[int, int]:
        counts = await asyncio.gather(*(member.engine.prefix_hits() for member in self.roster.members))
        return sum(hits for hits, _ in counts), sum(asked for _, asked in counts)

    def engine_seconds(self) -> float:
        return self.roster.clock.seconds()

    def stats(self) -> PoolStats:
        members = self.roster.members
        return PoolStats(
            engines=len(members),
            starting=self.roster.starting,
            in_flight=sum(member.holds for member in members),
            waiting=self._dispatch.waiting,
            unread=self._dispatch.unread,
            done=self._dispatch.done,
            failed=self._dispatch.failed,
            restarts=self.roster.restarts,
            where={member.name: member.where for member in members},
        )

    async def close(self) -> None:
        """End all engines. Calls of ``run`` that are still going raise EngineError."""
        self.roster.stop_hiring()
        self._fail(EngineError(f"the {self.role} pool was closed"))
        try:
            await self._tasks.cancel()
        finally:
            await self.roster.close()

    # ------------------------------------------------------------------------------------------------ streams
    def _send(self) -> None:
        """Give work to every engine with room; called whenever an engine, a row or a consumer became free."""
        if self._failure:
            return
        for delivery in self._dispatch.deliveries(self.roster.members):
            self._tasks.spawn(self._serve(delivery))

    async def _serve(self, delivery: Delivery) -> None:
        """Ship rows to an engine and take them back as they finish."""
        call = delivery.call
        stream = delivery.member.engine.run(call.task, delivery.shipment.rows)
        call.streams.add(stream)
        try:
            async for finished in stream:
                if self._dispatch.take_back(delivery, await finished):
                    self._deaths.barren = 0
                self._send()
            assert not delivery.unfinished, f"{delivery.member} left {len(delivery.unfinished)} rows unfinished"
        except RayError as error:
            delivery.stop()
            await self._interrupted(delivery, error)
            self._send()
        finally:
            call.streams.discard(stream)

    async def _interrupted(self, delivery: Delivery, error: RayError) -> None:
        """A delivery ended early: its call was abandoned, its rows cannot be pickled, or its engine is dead."""
        call, member = delivery.call, delivery.member
        if call.abandoned and isinstance(error, TaskCancelledError):
            return
        if isinstance(error, RayTaskError) and not isinstance(cause_of(error), EngineError):
            call.fail(RunError(f"{member} cannot exchange rows with this process: {death_of(error)}"))
            return
        self._deaths.bury(member, death_of(error), silent=isinstance(error, ActorUnavailableError))
        death = await self._deaths.examine(member)
        self._dispatch.recover(delivery, death)
        if self._deaths.count(member, death) and not self._dispatch.prove():
            self._tasks.spawn(self._deaths.give_up(member, death))

    # ------------------------------------------------------------------------------------------ arrivals, failure
    def _welcome(self, member: Member) -> None:
        """A newcomer serves: report its death, and give it work."""
        self._tasks.spawn(self._deaths.attend(member))
        self._send()

    def _fail(self, error: BaseException) -> None:
        """Fail all calls, now and from now on. The first error counts."""
        failure = error if isinstance(error, RunError) else RunError(f"{self.role} pool: {error!r}")
        self._failure = self._failure or failure
        self._dispatch.fail(self._failure)


class RayPools:
    """Pools as configured, one actor name never used twice. Implements ``rlaif.interfaces.Pools``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._numbers: dict[str, Iterator[int]] = defaultdict(itertools.count)
        self._pools: dict[str, EnginePool] = {}

    @property
    def live(self) -> Mapping[str, EnginePool]:
        """The pool of each role that has one now, also while its engines start."""
        return {role: pool for role, pool in self._pools.items() if not pool.roster.closed}

    async def open(self, role: str, model: str, engines: int | None = None) -> EnginePool:
        """Start ``engines`` of ``role``; None: ``min``. Raises EngineError or WaitTimeoutError if one cannot start."""
        settings: PoolSettings = getattr(self._config, role)
        pool = self._pools[role] = EnginePool(role, model, settings, numbers=self._numbers[role], engines=engines)
        try:
            await pool.start()
        except BaseException:
            await pool.close()
            raise
        return pool
