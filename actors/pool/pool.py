"""``EnginePool``: the one way to run inference on a cluster.

    rows ──► PoolCall ──► least-loaded engine ──► finished rows, streamed as lists ──► consumer
              ▲            │ dies, hangs
              └── suspects ┘   (in an engine of their own: a few together, then alone)

- *Dispatch.* The engine that holds fewest rows gets the next ``chunk_rows``; it never holds more than
  ``max_in_flight``. Rows are read only when an engine has room and the consumer keeps up.
- *Death.* An engine that dies, at work or idle, or holds rows and returns none for ``idle_timeout_s``, or takes longer
  to serve new weights, is replaced; its unfinished rows travel again. A row that was alone in an engine that died,
  after an earlier one had died with it, is given back as failed. When a node dies, nobody is suspected.
- *Size.* ``resize`` and, where it is asked for, ``actors.pool.autoscale``; leavers finish their rows first.
- *Weights.* ``update_weights`` and newcomers take turns, so that whoever serves, serves the latest version.

Ray restarts and retries nothing here (``max_restarts=0``): which rows are done is known to the pool alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError, TaskCancelledError

from actors.cluster.causes import cause_of, death_of
from actors.cluster.logs import log_tail
from actors.cluster.weights import SharedWeights, share
from actors.cluster.whereabouts import Whereabouts
from actors.pool.autoscale import Autoscaler, Load
from actors.pool.engine_clock import EngineClock
from actors.pool.member import Member, start_member
from actors.pool.shipment import PoolCall, Shipment, after_death, condemned
from rlaif.config.schema import Config, PoolSettings
from rlaif.errors import EngineError, RunError, UserError, WaitTimeoutError
from rlaif.interfaces import Done, Record, Row, Task, VersionedWeights

logger = logging.getLogger(__name__)

START_ATTEMPTS = 3  #: at replacing one engine, before a pool without any other fails
RETRY_S, RETRY_MOST_S = 1.0, 60.0  #: pause between such attempts: twice as long each time
BARREN_DEATHS = 6  #: for each engine: deaths in a row without one good row, before the pool gives up
SUSPECT_SHARE = 8  #: suspects travel again in groups of ``max_in_flight`` / 8
UNAVAILABLE_S = 5.0  #: before an engine that could not be reached is asked for again


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    """A pool at one moment. ``waiting``: rows that wait to be sent, as far as their sources tell how many they have;
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

    All methods belong to one asyncio loop. ``start`` first, ``close`` last.
    """

    def __init__(self, role: str, model: str, settings: PoolSettings, *, numbers: Iterator[int] | None = None) -> None:
        self.role = role
        self.closed = False
        self._model = model
        self._settings = settings
        self._numbers = numbers or itertools.count()  #: of actors: a replacement gets a name of its own
        self._members: list[Member] = []
        self._clock = EngineClock()
        self._starting = 0
        self._size = settings.min  #: engines that the pool is to have: what is missing is replaced
        self._runs: deque[PoolCall] = deque()
        self._suspects: deque[Shipment] = deque()
        self._weights: SharedWeights | None = None
        self._syncing = asyncio.Lock()
        self._resizing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hires: set[asyncio.Task[None]] = set()
        self._failure: RunError | None = None
        self._done = self._failed = self._restarts = self._barren = 0

    # ------------------------------------------------------------------------------------------ life and size
    async def start(self) -> None:
        """Start ``min`` engines at once. Raises EngineError or WaitTimeoutError when one of them cannot start."""
        await self._hire_many(self._settings.min)
        self._spawn(self._watch())
        if self._settings.autoscale.enabled:
            self._spawn(self._autoscale())

    async def resize(self, size: int) -> None:
        """Serve with ``size`` engines; returns when newcomers serve and leavers have finished their rows.

        Raises UserError outside ``min`` .. ``max``; EngineError or WaitTimeoutError when a newcomer cannot start: then
        those that serve already stay.
        """
        low, high = self._settings.min, self._settings.max
        if not low <= size <= high:
            raise UserError(f"{self.role}: {size} engines asked for; {self.role}.min={low} and max={high}")
        async with self._resizing:
            missing = size - len(self._members) - self._starting
            if missing > 0:
                await self._hire_many(missing)
            self._size = size
            leavers = sorted(self._members, key=lambda member: member.holds)[: max(0, -missing)]
            await asyncio.gather(*(self._retire(member) for member in leavers))

    async def _autoscale(self) -> None:
        """Grow and shrink by what the pool sees; an engine that cannot start is tried again when that lasts."""
        low, high = self._settings.min, self._settings.max
        scaler = Autoscaler(self._settings.autoscale, low, high)
        while True:
            await asyncio.sleep(scaler.pause_s)
            step = scaler.step(time.monotonic(), self._load())
            if step == 0 or self._resizing.locked():
                continue
            size = min(high, max(low, len(self._members) + step))
            try:
                await self.resize(size)
                logger.info("%s: %d engines", self.role, size)
            except RunError as error:
                logger.warning("%s: could not have %d engines: %s", self.role, size, error)

    def _load(self) -> Load:
        most, engines = self._settings.max_in_flight, len(self._members)
        wanting = bool(self._suspects) or any(run.wants(self._out_limit) for run in self._runs)
        held = sum(member.holds for member in self._members)
        return Load(
            engines=engines,
            starting=self._starting,
            full=wanting and self._roomiest() is None,
            spare=not wanting and held <= (engines - 1) * most,
        )

    async def close(self) -> None:
        """End all engines. Runs that are still going raise EngineError."""
        self.closed = True
        self._fail(EngineError(f"the {self.role} pool was closed"))
        for task in (*self._tasks, *self._hires):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        members, self._members = self._members, []
        self._clock.set(0)
        await asyncio.gather(*(member.close() for member in members))

    def stats(self) -> PoolStats:
        return PoolStats(
            engines=len(self._members),
            starting=self._starting,
            in_flight=sum(member.holds for member in self._members),
            waiting=sum(run.waiting for run in self._runs) + sum(len(s.rows) for s in self._suspects),
            unread=any(run.unread for run in self._runs),
            done=self._done,
            failed=self._failed,
            restarts=self._restarts,
            where={member.name: member.where for member in self._members},
        )

    @property
    def members(self) -> tuple[Member, ...]:
        """The engines that serve, with their whereabouts."""
        return tuple(self._members)

    async def _hire_many(self, count: int) -> None:
        """Start ``count`` engines at once. When one cannot start, those that do not serve yet are not waited for."""
        hires = [asyncio.create_task(self._hire()) for _ in range(count)]
        self._hires.update(hires)
        try:
            await asyncio.gather(*hires)
        except BaseException as error:
            for hire in hires:
                hire.cancel()
            await asyncio.gather(*hires, return_exceptions=True)
            task = asyncio.current_task()
            if self.closed and not (task and task.cancelling()):  # the hires were cancelled, not who waits for them
                raise EngineError(f"the {self.role} pool was closed while engines started") from error
            raise
        finally:
            self._hires.difference_update(hires)

    async def _hire(self) -> None:
        """Start one engine, let it catch up with the weights, and put it to work."""
        self._starting += 1
        try:
            name = f"{self.role}-{next(self._numbers)}"
            member = await start_member(name, self.role, self._model, self._settings)
            async with self._syncing:
                await self._catch_up(member)
                self._members.append(member)
                self._clock.set(len(self._members))
                self._spawn(self._attend(member))
        finally:
            self._starting -= 1
        self._dispatch()

    async def _catch_up(self, member: Member) -> None:
        try:
            if self._weights is not None:
                await member.update_weights(self._weights)
        except BaseException as error:
            member.kill()
            if isinstance(error, RayActorError):
                raise EngineError(f"{member} died while taking weights: {error}") from error
            raise

    async def _retire(self, member: Member) -> None:
        member.draining = True
        while member.holds and member in self._members:  # bounded: the watch kills it when it hangs
            await asyncio.sleep(0.05)
        async with self._syncing:  # else weights could be on their way to it
            if member not in self._members:
                return
            self._members.remove(member)
            self._clock.set(len(self._members))
        await member.close()

    async def _replace(self) -> None:
        """Start an engine in a dead one's place, however long that takes while others serve; without any, the pool
        fails after ``START_ATTEMPTS``."""
        attempt = 0
        while self._is_short:  # else it was resized meanwhile
            attempt += 1
            try:
                await self._hire()
                return
            except RunError as error:
                logger.warning("%s: a replacement could not start: %s", self.role, error)
                if attempt >= START_ATTEMPTS and not self._members and not self._starting:
                    self._fail(error)
                    return
            await asyncio.sleep(min(RETRY_MOST_S, RETRY_S * 2**attempt))

    @property
    def _is_short(self) -> bool:
        """Whether fewer engines stay or start than the pool is to have."""
        return sum(not member.draining for member in self._members) + self._starting < self._size

    async def prefix_hits(self) -> tuple[int, int]:
        counts = await asyncio.gather(*(member.prefix_hits() for member in tuple(self._members)))
        return sum(hits for hits, _ in counts), sum(asked for _, asked in counts)

    def engine_seconds(self) -> float:
        return self._clock.seconds()

    # ------------------------------------------------------------------------------------------------ weights
    async def update_weights(self, weights: VersionedWeights) -> None:
        """Give every engine the weights and wait until each has proved that it serves them.

        An engine that dies, fails or hangs meanwhile is replaced, and its replacement catches up. Raises
        WeightSyncError naming the engine that refuses them, TrainerLostError when they are gone with the node that had
        them; the pool must not be used afterwards.
        """
        async with self._syncing:
            self._weights = share(weights)
            members = tuple(self._members)
            outcomes = await asyncio.gather(
                *(member.update_weights(self._weights) for member in members), return_exceptions=True
            )
        for member, outcome in zip(members, outcomes, strict=True):
            if isinstance(outcome, RayActorError):
                self._bury(member, death_of(outcome))
            elif isinstance(outcome, EngineError | WaitTimeoutError):
                self._bury(member, str(outcome))
            elif outcome is not None:
                raise outcome

    # ------------------------------------------------------------------------------------------- rows out and in
    async def run(self, task: Task[Row, Record], rows: Iterable[Row]) -> AsyncIterator[list[Done[Row, Record]]]:
        """Run ``task`` on every row next to an engine; each row comes back exactly once, in any order, in lists of
        what came back together.

        Raises EngineError when the pool has no engine left and cannot start one.
        """
        if self._failure:
            raise self._failure
        run = PoolCall(ray.put(task), rows)
        self._runs.append(run)
        self._dispatch()
        try:
            while (back := await run.next()) is not None:
                if back:
                    yield back
                self._dispatch()
        finally:
            run.abandoned = True
            self._runs.remove(run)
            for stream in run.streams:
                ray.cancel(stream)

    def _dispatch(self) -> None:
        """Give work to every engine with room; called whenever an engine, a row or a consumer became free."""
        if self._failure:
            return
        self._isolate()
        while self._runs and (member := self._roomiest()):
            run = next((run for run in self._runs if run.wants(self._out_limit)), None)
            if run is None:
                return
            rows = run.take(self._chunk, len(self._members))
            if rows:
                self._send(member, Shipment(run=run, rows=tuple(rows)))
            self._runs.rotate(-1)

    @property
    def _out_limit(self) -> int:
        """Rows that one run may have out: as many as engines hold, and as many again that its consumer has to take."""
        return 2 * self._settings.max_in_flight * max(1, len(self._members))

    @property
    def _chunk(self) -> int:
        return min(self._settings.chunk_rows, max(1, self._settings.max_in_flight // 2))

    def _roomiest(self) -> Member | None:
        """The engine that holds fewest rows, if another chunk fits.

        While suspects wait and no engine is theirs yet, the emptiest one is left to drain.
        """
        serving = sorted((m for m in self._members if m.takes_rows), key=lambda m: m.holds)
        if self._suspects and not any(m.isolated for m in self._members):
            serving = serving[1:]
        fits = serving and serving[0].holds + self._chunk <= self._settings.max_in_flight
        return serving[0] if fits else None

    def _isolate(self) -> None:
        """Give suspects an engine of their own: nothing else is sent to it until they are back."""
        while self._suspects:
            if self._suspects[0].run.abandoned:
                self._suspects.popleft()
                continue
            empty = next((m for m in self._members if m.takes_rows and not m.holds), None)
            if empty is None:
                return
            empty.isolated = True
            self._send(empty, self._suspects.popleft())

    def _send(self, member: Member, shipment: Shipment) -> None:
        member.load(len(shipment.rows))
        self._spawn(self._serve(member, shipment))

    async def _serve(self, member: Member, shipment: Shipment) -> None:
        """Ship rows to an engine and take them back as they finish."""
        run, unfinished = shipment.run, dict(enumerate(shipment.rows))
        stream = member.handle.run.options(num_returns="streaming").remote(run.task, list(shipment.rows))
        run.streams.add(stream)
        try:
            async for reference in stream:
                finished = await reference
                member.unload(len(finished))
                self._give(run, [Done(row=unfinished.pop(i), record=r, failure=f) for i, r, f in finished])
                self._dispatch()
            assert not unfinished, f"{member} ended a shipment with {len(unfinished)} rows unfinished"
        except RayError as error:
            member.unload(len(unfinished))
            self._interrupted(member, shipment, list(unfinished.values()), error)
            self._dispatch()
        finally:
            run.streams.discard(stream)

    def _give(self, run: PoolCall, done: list[Done[Any, Any]]) -> None:
        failed = sum(row.failure is not None for row in done)
        self._done += len(done) - failed
        self._failed += failed
        if failed < len(done):
            self._barren = 0
        run.put(done)

    # ------------------------------------------------------------------------------------------ death and repair
    def _interrupted(self, member: Member, shipment: Shipment, unfinished: list[Any], error: RayError) -> None:
        """A shipment ended early: its run was left, its task cannot travel, or its engine is dead."""
        if shipment.run.abandoned and isinstance(error, TaskCancelledError):
            return
        if isinstance(error, RayTaskError) and not isinstance(cause_of(error), EngineError):
            shipment.run.fail(RunError(f"{member} cannot exchange rows with this process: {death_of(error)}"))
            return
        self._lose(member, shipment, unfinished, error)

    def _lose(self, member: Member, shipment: Shipment, unfinished: list[Any], error: RayError) -> None:
        """Bury an engine, and decide what becomes of the rows that it had."""
        run = shipment.run
        self._bury(member, death_of(error))
        if member.lost_with_node:
            run.give_back(unfinished)
        elif condemned(shipment, unfinished):
            times = "twice" if shipment.strikes == 1 else f"{shipment.strikes + 1} times"
            failure = f"killed its engine {times}: {member.cause}"
            self._give(run, [Done(row=row, record=None, failure=failure) for row in unfinished])
        else:
            self._suspects.extend(after_death(shipment, unfinished, self._suspect_group))

    @property
    def _suspect_group(self) -> int:
        return self._settings.max_in_flight // SUSPECT_SHARE

    def _bury(self, member: Member, cause: str) -> None:
        """Take a dead engine out and start another in its place. The first report of its death counts."""
        member.cause = member.cause or cause
        if member not in self._members:
            return
        logger.warning("%s died: %s", member, member.cause)
        member.lost_with_node = not member.node_alive()
        self._members.remove(member)
        self._clock.set(len(self._members))
        member.kill()
        self._barren += 1
        if self._barren > BARREN_DEATHS * max(self._settings.min, len(self._members) + 1):
            self._spawn(self._give_up(member))
        elif not member.draining:
            self._restarts += 1
            self._spawn(self._replace())

    async def _attend(self, member: Member) -> None:
        """Bury an engine that dies while it has nothing to do; rows that it has tell by themselves."""
        while True:
            try:
                await member.handle.stay.remote()
            except ActorUnavailableError:  # out of reach, perhaps alive: asked again, it answers or is known to be dead
                await asyncio.sleep(UNAVAILABLE_S)
            except RayActorError as error:
                return self._bury(member, death_of(error))

    async def _give_up(self, member: Member) -> None:
        log = await log_tail(member.where)
        self._fail(
            EngineError(
                f"{self._barren} {self.role} engines in a row died without one good row; "
                f"the last, {member}: {member.cause}{log}"
            )
        )

    async def _watch(self) -> None:
        """Kill engines that hold rows and return none; their streams then report the death."""
        pause = min(5.0, self._settings.idle_timeout_s / 4)
        while True:
            before = time.monotonic()
            await asyncio.sleep(pause)
            if time.monotonic() - before > 2 * pause + 1:
                continue  # this process was held up: what engines returned meanwhile has not been read yet
            for member in tuple(self._members):
                if member.idle_s() > self._settings.idle_timeout_s and member.cause is None:
                    member.cause = f"hung: held {member.holds} rows and returned none for {member.idle_s():.0f} s"
                    member.kill()
                    logger.warning("%s %s%s", member, member.cause, await log_tail(member.where))

    def _fail(self, error: RunError) -> None:
        self._failure = self._failure or error
        for run in self._runs:
            run.fail(self._failure)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error if isinstance(error, RunError) else RunError(f"{self.role} pool: {error!r}"))


class RayPools:
    """Pools as configured, one actor name never used twice. Implements ``rlaif.interfaces.Pools``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._numbers: dict[str, Iterator[int]] = defaultdict(itertools.count)
        self._pools: dict[str, EnginePool] = {}

    @property
    def opened(self) -> Mapping[str, EnginePool]:
        """The pool of each role that has one now, also while its engines start."""
        return {role: pool for role, pool in self._pools.items() if not pool.closed}

    async def open(self, role: str, model: str) -> EnginePool:
        """Start ``min`` engines of ``role``. Raises EngineError or WaitTimeoutError when one cannot start."""
        settings: PoolSettings = getattr(self._config, role)
        pool = self._pools[role] = EnginePool(role, model, settings, numbers=self._numbers[role])
        try:
            await pool.start()
        except BaseException:
            await pool.close()
            raise
        return pool
