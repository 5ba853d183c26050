"""The bookkeeping of an ``EnginePool``: which rows a call has out, and which are suspected of killing engines.

Knows no Ray. A row is *out* from when it is read until the consumer has taken its result. A *shipment* is the rows
that one engine gets at once; a *delivery* is a shipment in an engine. Rows that were in an engine when it died are
*suspects*: they are sent again to an engine of their own, first a few together, then one at a time. Only a row that
was the last one in an engine that died, after an earlier engine had died with it, is condemned.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from actors.pool.member import Member
from rlaif.interfaces import Done, Failure

AnyRow = Any  #: what a task takes: a pool looks at nothing of it but its ``id``
AnyRecord = Any  #: what a task returns: a pool only passes it on
AnyDone = Done[AnyRow, AnyRecord]
Finished = tuple[int, AnyRecord, Failure | None]  #: a row's place in its shipment, its record, why it failed


class PoolCall:
    """One call of ``EnginePool.run``: its unread rows, its rows out, and what has come back.

    Attributes:
        task: reference to the task in the object store.
        streams: of results, one for each delivery under way.
        out: number of rows read whose results the consumer has not taken.
        abandoned: the consumer has left; nothing more is sent.
    """

    def __init__(self, task: Any, rows: Iterable[AnyRow]) -> None:
        self.task = task
        self.streams: set[Any] = set()
        self.out = 0
        self.abandoned = False
        self._rows: Iterator[AnyRow] = iter(rows)
        self._returned: deque[AnyRow] = deque()  #: rows of a lost node, to be sent again without suspicion
        self._exhausted = False
        self._back: list[AnyDone] = []
        self._failure: BaseException | None = None
        self._news = asyncio.Event()  #: something came back, or there is nothing more to read

    def wants(self, limit: int) -> bool:
        """Whether more rows should be sent. No more are read once ``limit`` are out (back-pressure)."""
        unread = not self._exhausted and self.out < limit
        return not self.abandoned and (unread or bool(self._returned))

    @property
    def waiting(self) -> int:
        """Rows that wait to be sent, as far as is known: a source need not say how many it has."""
        unread = 0 if self._exhausted else operator.length_hint(self._rows)
        return unread + len(self._returned)

    @property
    def unread(self) -> bool:
        """Whether the source may have rows that were not read."""
        return not self._exhausted

    def take(self, most: int, sharers: int) -> list[AnyRow]:
        """Up to ``most`` rows; fewer when so few are left that ``sharers`` engines should split them."""
        left = operator.length_hint(self._rows, most * sharers) + len(self._returned)
        count = min(most, max(1, -(-left // sharers)))
        rows = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
        fresh = self._read(count - len(rows))
        self.out += len(fresh)
        return rows + fresh

    def _read(self, count: int) -> list[AnyRow]:
        if self._exhausted or not count:
            return []
        try:
            fresh = list(itertools.islice(self._rows, count))
        except Exception as error:  # the source of the rows failed: that ends this call, not the pool
            self._exhausted = True
            self.fail(error)
            return []
        if len(fresh) < count:
            self._exhausted = True
            self.put([])  # wakes a consumer that has everything already
        return fresh

    def give_back(self, rows: Sequence[AnyRow]) -> None:
        self._returned.extend(rows)

    def put(self, done: list[AnyDone]) -> None:
        self._back += done
        self._news.set()

    def fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._news.set()

    async def next(self) -> list[AnyDone] | None:
        """What came back since the last call; None when every row has.

        Raises the error of the pool or of the rows' source, after everything that came back before it.
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


class Proof(PoolCall):
    """A call that no consumer made: a good row of ``origin``, sent once more. If an engine dies of it, too, its rows
    are not to blame."""

    def __init__(self, origin: PoolCall) -> None:
        super().__init__(origin.task, ())
        self.origin = origin


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """Rows of one call for one engine. ``strikes``: how many engines have died with these rows in them."""

    call: PoolCall
    rows: tuple[AnyRow, ...]
    strikes: int = 0


class Delivery:
    """A shipment in an engine, which holds its rows from now on. ``unfinished``: rows not back, by their place."""

    def __init__(self, member: Member, shipment: Shipment) -> None:
        self.member = member
        self.shipment = shipment
        self.unfinished: dict[int, AnyRow] = dict(enumerate(shipment.rows))
        member.load(len(shipment.rows))

    @property
    def call(self) -> PoolCall:
        return self.shipment.call

    def finish(self, finished: Sequence[Finished]) -> list[AnyDone]:
        self.member.unload(len(finished))
        return [Done(row=self.unfinished.pop(place), record=record, failure=why) for place, record, why in finished]

    def stop(self) -> None:
        """Nothing more comes back: the engine does not hold the unfinished rows any longer."""
        self.member.unload(len(self.unfinished))


def split_suspects(shipment: Shipment, unfinished: Sequence[AnyRow], group: int) -> list[Shipment]:
    """The shipments in which ``unfinished`` rows are sent again: ``group`` together once, then one at a time."""
    strikes = shipment.strikes + 1
    size = max(1, group) if strikes == 1 else 1
    groups = [tuple(unfinished[start : start + size]) for start in range(0, len(unfinished), size)]
    return [Shipment(call=shipment.call, rows=rows, strikes=strikes) for rows in groups]


def is_condemned(shipment: Shipment, unfinished: Sequence[AnyRow]) -> bool:
    """Whether the one row left of an isolated shipment is what killed its engine."""
    return shipment.strikes >= 1 and len(unfinished) == 1
