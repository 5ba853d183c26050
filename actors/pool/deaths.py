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
NODE_GRACE_S = 5.0  #: how much later than the death of an engine that of its node may be reported
SILENT_GRACE_S = 90.0  #: the same where the engine was silent: so may its node be, to which Ray gives a minute


class Deaths:
    """``barren``: number of deaths at work since the last good row; a lost node's do not count. What runs in ``tasks``
    fails the pool when it raises."""

    def __init__(self, role: str, settings: PoolSettings, roster: Roster, tasks: BackgroundTasks) -> None:
        self.barren = 0
        self._role = role
        self._settings = settings
        self._roster = roster
        self._tasks = tasks

    def bury(self, member: Member, cause: str, *, silent: bool = False) -> None:
        """Take a dead engine off the roster and have it replaced. Only the first report of its death does anything."""
        death = member.die(cause, silent=silent)
        if self._roster.remove(member):
            _logger.warning("%s died: %s", member, death.cause)
            member.engine.kill()
            self._roster.refill()

    async def examine(self, member: Member) -> Death:
        """Why a buried engine died, once it is known whether its node is lost."""
        lost = await member.engine.loses_node(SILENT_GRACE_S if member.silent else NODE_GRACE_S)
        return member.die("", lost_with_node=lost)

    def count(self, member: Member, death: Death) -> bool:
        """Count a death at work; returns whether it is one too many in a row without a good row."""
        if death.lost_with_node or member.counted:
            return False
        member.counted = True
        self.barren += 1
        return self.barren > BARREN_DEATHS * max(self._settings.min, len(self._roster.members))

    async def give_up(self, member: Member, death: Death) -> None:
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
                    member.die(cause, silent=True)
                    member.engine.kill()
                    _logger.warning("%s %s%s", member, cause, await log_tail(member.where))
