"""The engines of one pool: how many there are to be, which start, which leave, and that all serve the same weights.

- *Newcomers* catch up with the latest weights before they get rows: every engine that serves, serves those.
- *Leavers* finish their rows first. *The dead* are replaced, however long that takes while others serve.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator

from ray.exceptions import RayActorError

from actors.cluster.weights import SharedWeights, share_weights
from actors.pool.background import BackgroundTasks
from actors.pool.engine_clock import EngineClock
from actors.pool.member import Member, MemberState
from actors.pool.remote_engine import RemoteEngine, start_engine
from rlaif.config.schema import PoolSettings
from rlaif.errors import EngineError, RunError, UserError
from rlaif.interfaces import VersionedWeights

_logger = logging.getLogger(__name__)

START_ATTEMPTS = 3  #: at replacing one engine, before a pool that has no other fails
REPLACE_PAUSE_S, REPLACE_PAUSE_MOST_S = 1.0, 60.0  #: between such attempts: twice as long each time


class Roster:
    """Hires, retires and replaces engines.

    Attributes:
        members: the engines that serve, whether they take rows now or not.
        restarts: number of dead engines that were replaced.
        closed: whether ``stop_hiring`` was called.
        clock: how long its engines have served, all together.
    """

    def __init__(
        self,
        role: str,
        model: str,
        settings: PoolSettings,
        *,
        numbers: Iterator[int] | None,
        tasks: BackgroundTasks,
        welcome: Callable[[Member], None],
        size: int | None = None,
    ) -> None:
        """``numbers``: of actors, so that a replacement gets a name of its own. ``tasks``: where replacements run; what
        they raise fails the pool. ``welcome``: called with each engine that begins to serve. ``size``: engines at the
        start; None: ``min``."""
        self.restarts = 0
        self.closed = False
        self.clock = EngineClock()
        self.role = role
        self._model = model
        self._settings = settings
        self._numbers = numbers or itertools.count()
        self._tasks = tasks
        self._welcome = welcome
        self._members: list[Member] = []
        self._size = size or settings.min  #: engines that there are to be
        self._replacing = 0  #: replacements that start, or pause before their next attempt
        self._pausing = 0  #: those that pause
        self._weights: SharedWeights | None = None
        self._syncing = asyncio.Lock()
        self._resizing = asyncio.Lock()
        self._hires: set[asyncio.Task[None]] = set()

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    @property
    def starting(self) -> int:
        """Number of engines that are starting now."""
        return self._hiring + self._replacing - self._pausing

    @property
    def resizing(self) -> bool:
        return self._resizing.locked()

    # ------------------------------------------------------------------------------------------------- size
    async def resize(self, size: int) -> None:
        """Have ``size`` engines; returns when newcomers serve and leavers have finished their rows.

        Raises UserError outside ``min`` .. ``max``; EngineError or WaitTimeoutError when a newcomer cannot start (as
        many as serve by then stay); EngineError when the pool is closed. Leavers leave even if the caller is cancelled.
        """
        low, high = self._settings.min, self._settings.max
        if not low <= size <= high:
            raise UserError(f"{self.role}: {size} engines asked for; {self.role}.min={low} and max={high}")
        async with self._resizing:
            self._check_open()  # it may have been closed while another order was carried out
            missing = size - self._staying - self.starting
            try:
                await self.hire(max(0, missing))
                self._size = size
            except BaseException:
                self._size = max(self._size, min(size, self._staying))
                raise
            finally:
                self.refill()  # an engine that died meanwhile seemed to be replaced by the newcomers
            await self._dismiss_surplus()

    async def _dismiss_surplus(self) -> None:
        """Let engines leave that are too many with those that start; returns when they have."""
        surplus = max(0, self._staying + self.starting - self._size)
        stayers = [member for member in self._members if member.state is not MemberState.DRAINING]
        leavers = sorted(stayers, key=lambda member: member.holds)[:surplus]
        if leavers:
            await asyncio.wait([self._tasks.spawn(self._retire(member)) for member in leavers])

    async def hire(self, count: int) -> None:
        """Start ``count`` engines at once. When one cannot start, those that do not serve yet are abandoned, and
        EngineError or WaitTimeoutError is raised."""
        self._check_open()
        hires = [asyncio.create_task(self._hire_one()) for _ in range(count)]
        self._hires.update(hires)
        try:
            await asyncio.gather(*hires)
        except BaseException as error:
            for hire in hires:
                hire.cancel()
            await asyncio.gather(*hires, return_exceptions=True)
            task = asyncio.current_task()
            if self.closed and not (task and task.cancelling()):  # the hires were cancelled, not their caller
                raise EngineError(f"the {self.role} pool was closed while engines started") from error
            raise
        finally:
            self._hires.difference_update(hires)

    async def _hire_one(self) -> None:
        """Start one engine, let it catch up with the weights, and put it to work."""
        name = f"{self.role}-{next(self._numbers)}"
        engine = await start_engine(name, self.role, self._model, self._settings)
        try:
            async with self._syncing:
                await self._catch_up(engine)
                self._check_open()
                member = Member(engine)
                self._set_members([*self._members, member])
        except BaseException:
            engine.kill()
            raise
        self._welcome(member)

    async def _retire(self, member: Member) -> None:
        member.drain()
        while member.holds and member in self._members:  # bounded: an engine that hangs is killed
            await asyncio.sleep(0.05)
        async with self._syncing:  # else weights could be on their way to it
            if not self.remove(member):
                return
            self.refill()  # one that died while it drained may have been counted among those that stay
        await member.engine.close()

    # ------------------------------------------------------------------------------------------------- deaths
    def remove(self, member: Member) -> bool:
        """Take a dead engine off the roster; False when it was off already."""
        if member not in self._members:
            return False
        self._set_members([other for other in self._members if other is not member])
        return True

    def _set_members(self, members: list[Member]) -> None:
        self._members = members
        self.clock.set(len(members))

    def refill(self) -> None:
        """Replace engines that have died, where there are to be more than stay, start, or are being replaced."""
        missing = 0 if self.closed else self._size - self._staying - self._hiring - self._replacing
        for _ in range(missing):
            self.restarts += 1
            self._replacing += 1
            self._tasks.spawn(self._replace())

    async def _replace(self) -> None:
        """Raises RunError when ``START_ATTEMPTS`` have failed and the pool has no other engine."""
        attempt, pause = 0, REPLACE_PAUSE_S
        try:
            while self._staying + self.starting <= self._size:  # this one starts, too; else it was resized meanwhile
                attempt += 1
                try:
                    await self._hire_one()
                    break
                except RunError as error:
                    _logger.warning("%s: a replacement could not start: %s", self.role, error)
                    if attempt >= START_ATTEMPTS and not self._members and self.starting == 1:
                        raise
                pause = min(REPLACE_PAUSE_MOST_S, 2 * pause)
                self._pausing += 1
                try:
                    await asyncio.sleep(pause)
                finally:
                    self._pausing -= 1
        finally:
            self._replacing -= 1
        async with self._resizing:
            await self._dismiss_surplus()  # there may be to be fewer engines than when it began to start

    @property
    def _staying(self) -> int:
        return sum(member.state is not MemberState.DRAINING for member in self._members)

    @property
    def _hiring(self) -> int:
        return sum(not hire.done() for hire in self._hires)

    # ------------------------------------------------------------------------------------------------- weights
    async def update_weights(self, weights: VersionedWeights) -> list[tuple[Member, BaseException | None]]:
        """Give every engine the weights and wait until each has proved that it serves them.

        Returns the engines, each with what ``RemoteEngine.update_weights`` raised. Newcomers wait meanwhile.
        """
        async with self._syncing:
            shared = self._weights = share_weights(weights)
            members = self.members
            outcomes = await asyncio.gather(
                *(member.engine.update_weights(shared) for member in members), return_exceptions=True
            )
        return list(zip(members, outcomes, strict=True))

    async def _catch_up(self, engine: RemoteEngine) -> None:
        try:
            if self._weights is not None:
                await engine.update_weights(self._weights)
        except RayActorError as error:
            raise EngineError(f"{engine} died while taking weights: {error}") from error

    # ------------------------------------------------------------------------------------------------- the end
    def _check_open(self) -> None:
        if self.closed:
            raise EngineError(f"the {self.role} pool was closed")

    def stop_hiring(self) -> None:
        self.closed = True
        for hire in self._hires:
            hire.cancel()

    async def close(self) -> None:
        """End all engines. Call ``stop_hiring`` first."""
        members = self.members
        self._set_members([])
        await asyncio.gather(*(member.engine.close() for member in members))
