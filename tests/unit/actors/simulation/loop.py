"""An asyncio loop whose schedule is chosen by a seed: which of the callbacks that are ready runs next, and the time.

Nothing sleeps. When no callback is ready, the clock goes to the next timer. The same seed gives the same schedule:
tasks and futures are numbered, so that sets of them have the same order in every process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import itertools
import random
from collections.abc import Coroutine
from typing import Any
from unittest import mock

_runs = itertools.count()
MAX_TIME_S = 200_000.0
MAX_CALLBACKS = 400_000


class Stuck(Exception):
    """Something waits for ever, or never comes to rest."""


class _Numbered:
    def __new__(cls, *args: Any, loop: SimulatedLoop, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.number = next(loop.numbers)
        return self

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Task(_Numbered, asyncio.Task):
    pass


class _Future(_Numbered, asyncio.Future):
    pass


class SimulatedLoop(asyncio.BaseEventLoop):
    """``choices``: of the schedule and of whoever simulates something on this loop. ``errors``: what reached the
    loop's exception handler."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.choices = random.Random(seed)
        self.numbers = itertools.count()
        self.callbacks = 0
        self.errors: list[str] = []
        self._now = 0.0
        self._futures: list[asyncio.Future[Any]] = []
        self.set_exception_handler(lambda loop, context: self.errors.append(f"{context}"))

    def time(self) -> float:
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        return self._noted(_Future(loop=self))

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None) -> Any:
        return self._noted(_Task(coro, loop=self, name=name, context=context))

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run ``main`` to its end, with ``time.monotonic`` as this loop's time. Raises Stuck."""
        asyncio.set_event_loop(self)
        try:
            with mock.patch("time.monotonic", self.time):
                return self.run_until_complete(main)
        finally:
            asyncio.set_event_loop(None)

    def lost_exceptions(self) -> list[str]:
        """What tasks and futures raised, and nobody looked at."""
        lost = [future for future in self._futures if future._log_traceback]
        for future in lost:
            future._log_traceback = False
        return [f"{future!r}" for future in lost]

    def forget(self) -> None:
        """Let go of what is left, so that thousands of schedules do not slow each other down."""
        for future in self._futures:
            if isinstance(future, asyncio.Task) and not future.done():
                future._log_destroy_pending = False
                with contextlib.suppress(RuntimeError):
                    future.get_coro().close()
        self._futures.clear()
        self._ready.clear()
        self._scheduled.clear()
        self.close()
        gc.collect(2 if next(_runs) % 50 == 0 else 0)

    def _check_closed(self) -> None:
        """Whatever lived on this loop may end after it."""

    def _noted(self, future: Any) -> Any:
        self._futures.append(future)
        return future

    def _run_once(self) -> None:
        if not self._ready:
            self._advance()
        self.callbacks += 1
        if self.callbacks > MAX_CALLBACKS or self._now > MAX_TIME_S:
            raise Stuck(f"not at rest after {self.callbacks} callbacks and {self._now:.0f} s")
        place = self.choices.randrange(len(self._ready))
        handle = self._ready[place]
        del self._ready[place]
        if not handle._cancelled:
            handle._run()

    def _advance(self) -> None:
        """Go to the next timer."""
        while not self._ready:
            if not self._scheduled:
                raise Stuck("nothing is left that could happen")
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._now = max(self._now, timer._when)
                self._ready.append(timer)
        while self._scheduled and self._scheduled[0]._when <= self._now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
