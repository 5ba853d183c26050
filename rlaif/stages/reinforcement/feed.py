"""Rows on their way to a pool: whether the last has been taken, and results in the order of the rows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from rlaif.interfaces import Pool, Task
from rlaif.stages.bookkeeping import quarantine_entry
from rlaif.stages.run import Run
from rlaif.storage.changes import RowToRecord

_RowT = TypeVar("_RowT", bound=RowToRecord)
_ResultT = TypeVar("_ResultT")


class Feed(Generic[_RowT]):
    """Rows, and an event for when a pool has taken the last: then the next rows may follow without a gap."""

    def __init__(self, rows: Sequence[_RowT]) -> None:
        self.rows = rows
        self.taken = asyncio.Event()
        self._left = deque(rows)

    def __iter__(self) -> Iterator[_RowT]:
        return self

    def __next__(self) -> _RowT:
        if not self._left:
            self.taken.set()
            raise StopIteration
        return self._left.popleft()

    def __length_hint__(self) -> int:
        return len(self._left)


async def run_in_order(
    run: Run, kind: str, batch: int, pool: Pool, task: Task[_RowT, _ResultT], feed: Feed[_RowT]
) -> list[_ResultT]:
    """Results of the rows in their order; a row that fails is quarantined and leaves a gap."""
    by_id: dict[str, _ResultT] = {}
    async for results in pool.run(task, feed):
        for done in results:
            if done.record is not None:
                by_id[done.row.id] = done.record
            if done.failure is not None:
                run.quarantine(quarantine_entry(kind, done.row, done.failure, batch))
    return [by_id[row.id] for row in feed.rows if row.id in by_id]
