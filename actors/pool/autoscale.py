"""When a pool should have one engine more or one less: a pure decision over its load. Knows no Ray.

Rows are read only as far as engines have room, so no queue shows how much work is left. What does is the room: all
engines are full while rows wait, or a whole engine's worth of room is unused. Between the two lies a band in which
nothing changes, and each must last; so a pool that has just shrunk is not full again at once, and one late row does
not start an engine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.config.schema import Autoscale, PoolSettings
from rlaif.errors import RunError

if TYPE_CHECKING:
    from actors.pool.member import Member
    from actors.pool.roster import Roster

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Of a pool at one moment. ``full``: rows wait and no engine has room; ``spare``: one engine fewer could hold them
    all."""

    engines: int
    starting: int
    full: bool
    spare: bool


class Autoscaler:
    """Hysteresis over time: a step of one engine once the reason for it has lasted; then the clock starts again."""

    def __init__(self, settings: Autoscale, low: int, high: int) -> None:
        self._settings = settings
        self._low = low
        self._high = high
        self._full_since: float | None = None
        self._spare_since: float | None = None

    @property
    def pause_s(self) -> float:
        """How often to look."""
        return min(self._settings.up_after_s, self._settings.down_after_s) / 5

    def step(self, now: float, load: Load) -> int:
        """1, 0 or -1 engines. While an engine starts, the load is not yet what it will be."""
        settled = load.starting == 0
        self._full_since = _since(now, self._full_since, settled and load.full and load.engines < self._high)
        self._spare_since = _since(now, self._spare_since, settled and load.spare and load.engines > self._low)
        if _lasted(now, self._full_since, self._settings.up_after_s):
            self._full_since = None
            return 1
        if _lasted(now, self._spare_since, self._settings.down_after_s):
            self._spare_since = None
            return -1
        return 0


async def autoscale(roster: Roster, settings: PoolSettings, load: Callable[[Sequence[Member], int], Load]) -> None:
    """Grow and shrink with the load, for ever; an engine that cannot start is tried again while the load lasts."""
    low, high = settings.min, settings.max
    scaler = Autoscaler(settings.autoscale, low, high)
    while True:
        await asyncio.sleep(scaler.pause_s)
        step = scaler.step(time.monotonic(), load(roster.members, roster.starting))
        if step == 0 or roster.resizing:
            continue
        size = min(high, max(low, len(roster.members) + step))
        try:
            await roster.resize(size)
            _logger.info("%s: %d engines", roster.role, size)
        except RunError as error:
            _logger.warning("%s: could not have %d engines: %s", roster.role, size, error)


def _since(now: float, since: float | None, holds: bool) -> float | None:
    return (now if since is None else since) if holds else None


def _lasted(now: float, since: float | None, seconds: float) -> bool:
    return since is not None and now - since >= seconds
