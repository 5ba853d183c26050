"""Book-keeping of an ``EnginePool``: which rows a run has out, and which rows are suspected of killing engines.

Knows no Ray. A row is *out* from when it was read until its result was taken; a *shipment* is what one engine got at
once. Rows that were in an engine when it died are suspects: they travel again in an engine of their own, first a few
together, then alone. Only a row that was alone in the engine that died, and had been in one before, is condemned.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.interfaces import Done


class PoolCall:
    """One call of ``EnginePool.run``: its unread rows, the rows out, and what came back."""

    def __init__(self, task: Any, rows: Iterable[Any]) -> None:
        self.task = task  #: reference to the task in the object store
        self.streams: set[Any] = set()  #: of results, one for each shipment under way
        self.out = 0  #: rows read and not yet taken by the consumer
        self.abandoned = False
        self._rows: Iterator[Any] = iter(rows)
        self._returned: deque[Any] = deque()  #: rows of a lost node: to be sent again, under no suspicion
        self._exhausted = False
        self._back: list[Done[Any, Any]] = []
        self._failure: BaseException | None = None
        self._news = asyncio.Event()  #: something came back, or there is nothing more to read

    def wants(self, limit: int) -> bool:
        """Whether more rows should be sent; at most ``limit`` are out at once (back-pressure)."""
        unread = not self._exhausted and self.out < limit
        return not self.abandoned and (unread or bool(self._returned))

    @property
    def waiting(self) -> int:
        """Rows that wait to be sent, as far as is known: a source need not tell how many it has."""
        unread = 0 if self._exhausted else operator.length_hint(self._rows)
        return unread + len(self._returned)

    @property
    def unread(self) -> bool:
        """Whether there may be rows that were not read."""
        return not self._exhausted

    def take(self, most: int, sharers: int) -> list[Any]:
        """Up to ``most`` rows; fewer when so few are left that ``sharers`` engines should split them."""
        left = operator.length_hint(self._rows, most * sharers) + len(self._returned)
        count = min(most, max(1, -(-left // sharers)))
        rows = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        fresh = self._read(count - len(rows))
        self.out += len(fresh)
        return rows + fresh

    def _read(self, count: int) -> list[Any]:
        if self._exhausted or not count:
            return []
        try:
            fresh = list(itertools.islice(self._rows, count))
        except Exception as error:  # the source of the rows failed: that ends this run, not the pool
            self._exhausted = True
            self.fail(error)
            return []
        if len(fresh) < count:
            self._exhausted = True
            self.put([])  # wakes a consumer that has everything already
        return fresh

    def give_back(self, rows: Sequence[Any]) -> None:
        self._returned.extend(rows)

    def put(self, done: list[Done[Any, Any]]) -> None:
        self._back += done
        self._news.set()

    def fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._news.set()

    async def next(self) -> list[Done[Any, Any]] | None:
        """What came back since the last call; None when every row did.

        Raises what the pool or the rows' source failed with, after what had come back before.
        """
        if not self._news.is_set() and self._exhausted and self.out == 0:
            return None
        if not self._failure:
            await self._news.wait()
        self._news.clear()
        if self._failure and not self._back:
            raise self._failure
        back, self._back = self._back, []
        self.out -= len(back)
        return back


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """Rows of one run for one engine. ``strikes``: how many engines died with these rows in them."""

    run: PoolCall
    rows: tuple[Any, ...]
    strikes: int = 0


def after_death(shipment: Shipment, unfinished: Sequence[Any], group: int) -> list[Shipment]:
    """The shipments in which ``unfinished`` rows travel again: ``group`` together once, then each alone."""
    strikes = shipment.strikes + 1
    size = max(1, group) if strikes == 1 else 1
    groups = [tuple(unfinished[start : start + size]) for start in range(0, len(unfinished), size)]
    return [Shipment(run=shipment.run, rows=rows, strikes=strikes) for rows in groups]


def condemned(shipment: Shipment, unfinished: Sequence[Any]) -> bool:
    """Whether the one row left of an isolated shipment is what killed its engine."""
    return shipment.strikes >= 1 and len(unfinished) == 1
