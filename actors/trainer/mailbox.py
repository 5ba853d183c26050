"""Between the driver and the ranks of one trainer: orders, replies, metrics, and signs of life.

Orders are numbered from 1 and obeyed by every rank in that order. Those since the last whole checkpoint are kept: after
a restart, ranks load it and learn again what came after it, so that a lost rank loses no batch; a checkpoint that they
were writing meanwhile is begun again as well. Rows pass through here on their way to the ranks, so that no reference is
nested in what the driver sends: Ray keeps a little of each nested reference for the life of the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from actors.cluster import remote
from actors.cluster.whereabouts import Whereabouts
from rlaif.errors import RunError

_T = TypeVar("_T")
Verb = Literal["learn", "weights", "bucket", "save", "begin_checkpoint", "finish_checkpoint", "stop"]
REPEATED: tuple[Verb, ...] = ("learn", "begin_checkpoint")  #: by ranks that are started again
MAILBOX_POLL_S = 5.0  #: longest that a question stays open here; then it is asked again, unless there is reason not to


@dataclass(frozen=True, kw_only=True)
class Order:
    """What every rank is to do next. ``payload``: rows, by reference between mailbox and ranks, or a path."""

    number: int
    verb: Verb
    payload: Any = None


@dataclass(frozen=True, kw_only=True)
class RankReply:
    """Rank 0's reply to an order; ``number`` 0 means that the ranks are ready."""

    number: int
    result: Any = None


@dataclass(frozen=True, kw_only=True)
class StartedRank:
    """A rank that has started. ``silent_s``: since it last asked for an order, or beat because it got on with one."""

    handle: Any
    where: Whereabouts
    silent_s: float


@dataclass(frozen=True, kw_only=True)
class Silence:
    """How long no order has come and no rank has started, obeyed, reported or beaten, whether ranks are being started,
    and how many have started so far."""

    seconds: float
    starting: bool
    num_started: int


class Mailbox:
    """The actor. Every method returns soon: with None, when there is nothing to return within ``MAILBOX_POLL_S``."""

    def __init__(self, checkpoint: str | None) -> None:
        self._checkpoint = checkpoint
        self._orders: list[Order] = []
        self._kept_after = 0  #: orders up to this number are part of the checkpoint
        self._answers: dict[int, RankReply] = {}
        self._answered = -1
        self._reports: list[Mapping[str, float]] = []
        self._taken = 0  #: reports that the driver has, and that are not kept
        self._ranks: dict[int, tuple[Any, Whereabouts]] = {}
        self._signs: dict[int, float] = {}  #: when each rank last gave one
        self._done: dict[int, int] = {}  #: the last order that each rank has obeyed
        self._moved = time.monotonic()
        self._starting = True
        self._num_started = 0
        self._closing = False
        self._changed = asyncio.Condition()

    async def place(self, number: int, verb: Verb, payload: Any) -> None:
        """``payload``: the rows to learn from, or a path."""
        if verb == "learn":  # one copy for all ranks, outside of this process
            payload = remote.put(payload)
        self._orders.append(Order(number=number, verb=verb, payload=payload))
        self._moved = time.monotonic()
        await self._notify()

    async def start_point(self, rank: int, handle: Any, where: Whereabouts) -> tuple[str | None, int]:
        """A rank reports itself, and learns from which checkpoint to go on and after which order. Raises RunError when
        the trainer was closed before the rank had started."""
        if self._closing:
            raise RunError("the trainer was closed")
        self._ranks[rank] = handle, where
        self._num_started += 1
        self._signs[rank] = self._moved = time.monotonic()
        return self._checkpoint, self._kept_after

    async def next_order(self, rank: int, after: int) -> Order | None:
        """The first order after ``after`` that is unanswered or to be repeated."""
        self._signs[rank] = time.monotonic()
        if self._done.get(rank) != after:
            self._done[rank], self._moved = after, self._signs[rank]

        def due() -> Order | None:
            orders = (o for o in self._orders if o.number > after)
            return next((o for o in orders if o.number > self._answered or o.verb in REPEATED), None)

        return await self._until(due)

    async def beat(self, rank: int) -> None:
        """A rank has got on with what it does, an order or a fit."""
        self._signs[rank] = self._moved = time.monotonic()

    async def answer(self, answer: RankReply) -> None:
        """Rank 0 has obeyed; an answer to an order that was answered before a restart is dropped."""
        self._starting, self._moved = False, time.monotonic()
        if answer.number <= self._answered:
            return
        self._answers = {answer.number: answer}  # the driver waits for one order at a time
        self._answered = answer.number
        order = next((o for o in self._orders if o.number == answer.number), None)
        if order is not None and order.verb == "finish_checkpoint" and answer.result:
            begun = next(o for o in reversed(self._orders) if o.verb == "begin_checkpoint")
            self._checkpoint, self._kept_after = begun.payload, begun.number
        self._orders = [o for o in self._orders if o.number > self._kept_after]
        await self._notify()

    async def answer_to(self, number: int) -> RankReply | None:
        return await self._until(lambda: self._answers.get(number))

    async def report(self, metrics: Mapping[str, float]) -> None:
        self._reports.append(metrics)
        self._starting, self._moved = False, time.monotonic()
        await self._notify()

    async def reports(self, taken: int) -> list[Mapping[str, float]]:
        """Metrics after the first ``taken``, which the driver has: what it did not get is returned again."""
        del self._reports[: taken - self._taken]
        self._taken = taken
        await self._until(lambda: self._reports or self._closing or None)
        return list(self._reports)

    async def ranks(self) -> dict[int, StartedRank]:
        now = time.monotonic()
        return {
            rank: StartedRank(handle=handle, where=where, silent_s=now - self._signs[rank])
            for rank, (handle, where) in self._ranks.items()
        }

    async def silence(self) -> Silence:
        seconds = time.monotonic() - self._moved
        return Silence(seconds=seconds, starting=self._starting, num_started=self._num_started)

    async def close(self) -> None:
        """From now on, failures of ranks are final, and there are no more reports to wait for."""
        self._closing = True
        await self._notify()

    async def note_failure(self) -> bool:
        """Ranks failed and will be restarted, unless the trainer is closing, which this returns."""
        self._starting, self._moved = True, time.monotonic()
        return self._closing

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, look_up: Callable[[], _T | None]) -> _T | None:
        """What ``look_up`` returns as soon as it is not None, or None after ``MAILBOX_POLL_S``."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: look_up() is not None), MAILBOX_POLL_S)
            except TimeoutError:
                return None
            return look_up()
