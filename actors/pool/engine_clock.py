"""How long a pool's engines have served, all together: what labels cost is paid by this time."""

from __future__ import annotations

import time


class EngineClock:
    """Adds up the seconds of engines whose number changes. Times are ``time.monotonic``'s."""

    def __init__(self) -> None:
        self._num_engines = 0
        self._since = 0.0
        self._seconds = 0.0

    def set(self, num_engines: int, now: float | None = None) -> None:
        """From ``now`` on, ``num_engines`` serve."""
        now = time.monotonic() if now is None else now
        self._seconds, self._since, self._num_engines = self.seconds(now), now, num_engines

    def seconds(self, now: float | None = None) -> float:
        now = time.monotonic() if now is None else now
        return self._seconds + self._num_engines * (now - self._since)
