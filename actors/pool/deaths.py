"""How the deaths of a pool's engines are noticed, and what follows: each is replaced, until too many die in vain."""

from __future__ import annotations

import asyncio
import logging
import time

from actors.cluster.logs import log_tail
from actors.pool.background import BackgroundTasks
from actors.pool.member import Death, Member, MemberState
from actors.pool.roster import Roster
from rlaif.config.schema import PoolSettings
from rlaif.errors import EngineError

_logger = logging.getLogger(__name__)

BARREN_DEATHS = 6  #: for each engine: deaths in a row without one good row, before the pool gives up


class Deaths:
    """``barren``: number of deaths since the last good row. What runs in ``tasks`` fails the pool when it raises."""

    def __init__(self, role: str, settings: PoolSettings, roster: Roster, tasks: BackgroundTasks) -> None:
        self.barren = 0
        self._role = role
        self._settings = settings
        self._roster = roster
        self._tasks = tasks

    def bury(self, member: Member, cause: str) -> Death:
        """Take a dead engine off the roster and have it replaced. Only the first report of its death does anything."""
        if not self._roster.remove(member):
            return member.die(cause)
        death = member.die(cause, lost_with_node=not member.engine.node_alive())
        _logger.warning("%s died: %s", member, death.cause)
        member.engine.kill()
        self.barren += 1
        if self.barren > BARREN_DEATHS * max(self._settings.min, len(self._roster.members) + 1):
            self._tasks.spawn(self._give_up(member, death))
        else:
            self._roster.refill()
        return death

    async def _give_up(self, member: Member, death: Death) -> None:
        log = await log_tail(member.where)
        raise EngineError(
            f"{self.barren} {self._role} engines in a row died without one good row; "
            f"the last, {member}: {death.cause}{log}"
        )

    async def attend(self, member: Member) -> None:
        """Bury an engine that dies idle. When it holds rows, their streams report the death as well."""
        self.bury(member, await member.engine.until_death())

    async def watch(self) -> None:
        """Kill engines that hold rows and return none; their streams then report the death."""
        pause = min(5.0, self._settings.idle_timeout_s / 4)
        while True:
            before = time.monotonic()
            await asyncio.sleep(pause)
            if time.monotonic() - before > 2 * pause + 1:
                continue  # this process was held up: what engines returned meanwhile has not been read yet
            for member in self._roster.members:
                if member.idle_s() > self._settings.idle_timeout_s and member.state is not MemberState.DEAD:
                    cause = f"hung: held {member.holds} rows and returned none for {member.idle_s():.0f} s"
                    member.die(cause)
                    member.engine.kill()
                    _logger.warning("%s %s%s", member, cause, await log_tail(member.where))
