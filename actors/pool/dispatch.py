"""Which engine gets which rows, and what becomes of the rows of an engine that died. Knows no Ray.

The engine that holds fewest rows gets the next ``chunk_rows``, of the calls in turn; none ever holds more than
``max_in_flight``. Rows are read only when an engine has room and the call's consumer keeps up. Suspects are sent to
an engine that is empty and gets nothing else until they are back (``actors.pool.shipment`` defines them).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from actors.pool.autoscale import Load
from actors.pool.member import Death, Member, MemberState
from actors.pool.shipment import (
    AnyDone,
    AnyRow,
    Delivery,
    Finished,
    PoolCall,
    Proof,
    Shipment,
    is_condemned,
    split_suspects,
)
from rlaif.config.schema import PoolSettings
from rlaif.interfaces import Done, Failure

SUSPECT_SHARE = 8  #: suspects are first sent again in groups of ``max_in_flight`` / 8


class Dispatch:
    """The calls in progress and the suspects of one pool. ``done``, ``failed``: numbers of rows given back."""

    def __init__(self, settings: PoolSettings) -> None:
        self.done = 0
        self.failed = 0
        self._calls: deque[PoolCall] = deque()
        self._suspects: deque[Shipment] = deque()
        self._good: tuple[PoolCall, AnyRow] | None = None  #: the last row that came back good, of which call
        self._proof: Proof | None = None  #: under way
        self._max_in_flight = settings.max_in_flight
        self._chunk = min(settings.chunk_rows, max(1, settings.max_in_flight // 2))

    # ------------------------------------------------------------------------------------------------ calls
    def open(self, task: Any, rows: Iterable[AnyRow]) -> PoolCall:
        call = PoolCall(task, rows)
        self._calls.append(call)
        return call

    def close(self, call: PoolCall) -> None:
        """Send nothing more of this call."""
        call.abandoned = True
        self._calls.remove(call)

    def fail(self, error: BaseException) -> None:
        for call in self._calls:
            call.fail(error)

    @property
    def waiting(self) -> int:
        """Rows that wait to be sent, as far as their sources say how many they have."""
        return sum(call.waiting for call in self._calls) + sum(len(shipment.rows) for shipment in self._suspects)

    @property
    def unread(self) -> bool:
        """Whether some source may have more rows."""
        return any(call.unread for call in self._calls)

    def load(self, members: Sequence[Member], starting: int) -> Load:
        wanting = bool(self._suspects) or any(call.wants(self._out_limit(members)) for call in self._calls)
        held = sum(member.holds for member in members)
        return Load(
            engines=len(members),
            starting=starting,
            full=wanting and self._roomiest(members) is None,
            spare=not wanting and held <= (len(members) - 1) * self._max_in_flight,
        )

    # ------------------------------------------------------------------------------------------------- rows out
    def deliveries(self, members: Sequence[Member]) -> Iterator[Delivery]:
        """What to send now: suspects first, then as many rows as engines have room for."""
        yield from self._isolated(members)
        yield from self._chunks(members)

    def _isolated(self, members: Sequence[Member]) -> Iterator[Delivery]:
        while self._suspects:
            if self._suspects[0].call.abandoned:
                self._suspects.popleft()
                continue
            empty = next((m for m in members if m.state is MemberState.SERVING and not m.holds), None)
            if empty is None:
                return
            empty.isolate()
            yield Delivery(empty, self._suspects.popleft())

    def _chunks(self, members: Sequence[Member]) -> Iterator[Delivery]:
        while member := self._roomiest(members):
            call = next((call for call in self._calls if call.wants(self._out_limit(members))), None)
            if call is None:
                return
            rows = call.take(self._chunk, len(members))
            if rows:
                yield Delivery(member, Shipment(call=call, rows=tuple(rows)))
            self._calls.rotate(-1)

    def _roomiest(self, members: Sequence[Member]) -> Member | None:
        """The engine that holds fewest rows, if another chunk fits.

        While suspects wait and no engine is isolated yet, the emptiest one is left to drain for them.
        """
        serving = sorted((m for m in members if m.state is MemberState.SERVING), key=lambda member: member.holds)
        if self._suspects and not any(m.state is MemberState.ISOLATED for m in members):
            serving = serving[1:]
        fits = serving and serving[0].holds + self._chunk <= self._max_in_flight
        return serving[0] if fits else None

    def _out_limit(self, members: Sequence[Member]) -> int:
        """Rows that one call may have out: as many as engines hold, and as many again for its consumer to take."""
        return 2 * self._max_in_flight * max(1, len(members))

    # ------------------------------------------------------------------------------------------------ rows back
    def take_back(self, delivery: Delivery, finished: Sequence[Finished]) -> bool:
        """Give finished rows to their call; returns whether any of them is good."""
        done = delivery.finish(finished)
        good = [one.row for one in done if one.failure is None]
        call = delivery.call
        if isinstance(call, Proof):
            call = call.origin
        else:
            self._give(call, done)
        if good:
            self._good = call, good[-1]
        if good or call is not delivery.call:
            self._proof = None
        return bool(good)

    def prove(self) -> bool:
        """Let an engine do the last row again that came back good, before any suspect; False when there is none, or an
        engine has died of it."""
        if self._proof is None and self._good is not None:
            call, row = self._good
            self._proof, self._good = Proof(call), None
            self._suspects.appendleft(Shipment(call=self._proof, rows=(row,)))
        return self._proof is not None

    def recover(self, delivery: Delivery, death: Death) -> None:
        """Decide what becomes of the rows that an engine held when it died."""
        shipment, unfinished = delivery.shipment, list(delivery.unfinished.values())
        if isinstance(delivery.call, Proof):
            if death.lost_with_node:
                self._suspects.appendleft(shipment)
            else:
                self._proof = None
        elif death.lost_with_node:
            delivery.call.give_back(unfinished)
        elif is_condemned(shipment, unfinished):
            times = "twice" if shipment.strikes == 1 else f"{shipment.strikes + 1} times"
            failure = Failure(cause=f"killed its engine {times}: {death.cause}", fault="row")
            self._give(delivery.call, [Done(row=row, record=None, failure=failure) for row in unfinished])
        else:
            self._suspects.extend(split_suspects(shipment, unfinished, self._max_in_flight // SUSPECT_SHARE))

    def _give(self, call: PoolCall, done: list[AnyDone]) -> None:
        failed = sum(row.failure is not None for row in done)
        self.done += len(done) - failed
        self.failed += failed
        call.put(done)
