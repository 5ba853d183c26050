"""Results on their way out of an engine's actor: those that finish close together travel together.

To send a list costs an actor and the driver about a millisecond each, however many results are in it. So a list waits
``GATHER_S`` for results that come at the same time, and a shipment sends one in ``PACE_S`` unless an eighth of it has
finished sooner: the driver's room for more rows is not held up. The last list waits for nothing. Knows no Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

GATHER_S = 0.01
PACE_S = 0.2
SHARE = 8


class Gathering(Generic[T]):
    """Results of ``tasks`` in lists. Iterating raises what a task raised."""

    def __init__(self, tasks: Sequence[asyncio.Task[T]]) -> None:
        self._left = len(tasks)
        self._share = max(1, len(tasks) // SHARE)
        self._finished: list[asyncio.Task[T]] = []
        self._wanted = 1
        self._reached = asyncio.Event()
        for task in tasks:
            task.add_done_callback(self._note)

    async def __aiter__(self) -> AsyncIterator[list[T]]:
        next_list = 0.0
        while self._left:
            await self._until(1, None)
            await self._until(self._left, GATHER_S)
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

    def _note(self, task: asyncio.Task[T]) -> None:
        self._finished.append(task)
        if len(self._finished) >= self._wanted:
            self._reached.set()
