"""Rows on their way to a pool: whether the last has been taken, and results in the order of the rows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from rlaif.interfaces import Pool, Task
from rlaif.stages.run import Run, failed


class Watched:
    """Rows, and an event for when a pool has taken the last: then the next rows may follow without a gap."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows
        self.taken = asyncio.Event()
        self._left = deque(rows)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._left:
            self.taken.set()
            raise StopIteration
        return self._left.popleft()

    def __length_hint__(self) -> int:
        return len(self._left)


async def in_order(run: Run, stage: str, pool: Pool, task: Task, watched: Watched) -> list[Any]:
    """Results of the rows in their order; a row that fails is quarantined and leaves a gap."""
    results = {}
    async for back in pool.run(task, watched):
        for done in back:
            if done.record is not None:
                results[done.row.id] = done.record
            else:
                run.quarantine(failed(stage, done.row, done.failure or "unknown"))
    return [results[row.id] for row in watched.rows if row.id in results]
