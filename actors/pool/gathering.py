"""Results on their way out of an engine's actor: those that finish close together are sent together. Knows no Ray.

Sending a list costs the actor and the driver about a millisecond each, however many results are in it. So a list waits
``LINGER_S`` for results that finish at the same time, and a shipment sends one list in ``PACE_S``, or earlier once an
eighth of it has finished, so that the driver does not wait for room to send more rows. The last list waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")

LINGER_S = 0.01
PACE_S = 0.2
SHARE = 8


class Gathering(Generic[_T]):
    """The results of ``tasks`` in lists. Iterating raises what a task raised."""

    def __init__(self, tasks: Sequence[asyncio.Task[_T]]) -> None:
        self._left = len(tasks)
        self._share = max(1, len(tasks) // SHARE)
        self._finished: list[asyncio.Task[_T]] = []
        self._wanted = 1
        self._reached = asyncio.Event()
        for task in tasks:
            task.add_done_callback(self._note)

    async def __aiter__(self) -> AsyncIterator[list[_T]]:
        next_list = 0.0
        while self._left:
            await self._until(1, None)
            await self._until(self._left, LINGER_S)
            await self._until(self._share, next_list - time.monotonic())
            next_list = time.monotonic() + PACE_S
            finished, self._finished = self._finished, []
            self._left -= len(finished)
            yield [task.result() for task in finished]

    async def _until(self, wanted: int, timeout_s: float | None) -> None:
        """Wait for ``wanted`` results, or all that are left."""
        self._wanted = min(wanted, self._left)
        if len(self._finished) < self._wanted and (timeout_s is None or timeout_s > 0):
            self._reached.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._reached.wait()

    def _note(self, task: asyncio.Task[_T]) -> None:
        self._finished.append(task)
        if len(self._finished) >= self._wanted:
            self._reached.set()
