"""The off-policy bound as admission control: nothing is discarded for its age; it is just not started early."""

from __future__ import annotations

import asyncio


class Admission:
    """Lets batch b start once b <= version + max_staleness, so that no rollout is learned staler than that.

    In rollouts: accepted + running <= (max_staleness + 1 + version) * batch size, version = batches learned and
    published.
    """

    def __init__(self, version: int, max_staleness: int) -> None:
        self._version = version
        self._max_staleness = max_staleness
        self._advanced = asyncio.Condition()

    async def wait_for_turn(self, batch: int) -> None:
        """Returns when ``batch`` may start."""
        await self.wait_for_version(batch - self._max_staleness)

    async def wait_for_version(self, version: int) -> None:
        """Returns when the generators serve ``version`` or a later one."""
        async with self._advanced:
            await self._advanced.wait_for(lambda: version <= self._version)

    async def advance(self, version: int) -> None:
        async with self._advanced:
            self._version = version
            self._advanced.notify_all()
