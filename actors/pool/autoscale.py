"""When a pool should have one engine more, or one less: a pure decision over what it sees. Knows no Ray.

Rows are read only as far as engines have room, so no queue tells how much work is left. What tells is the room: all
engines full while rows wait, or a whole engine's worth of it unused. Between the two lies a band in which nothing
changes, and each must last; so a pool that has just shrunk is not at once full again, and one late row starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlaif.config.schema import Autoscale


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a pool sees. ``full``: rows wait and no engine has room; ``spare``: one engine fewer could hold them all."""

    engines: int
    starting: int
    full: bool
    spare: bool


class Autoscaler:
    """Hysteresis over time: a step of one engine when the reason for it has lasted, then from the beginning."""

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
        """1, 0 or -1 engines. While an engine starts, what the pool sees is not yet what it will be."""
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


def _since(now: float, since: float | None, holds: bool) -> float | None:
    return (now if since is None else since) if holds else None


def _lasted(now: float, since: float | None, seconds: float) -> bool:
    return since is not None and now - since >= seconds
