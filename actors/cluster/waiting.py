"""Bounded waits: unless a watch bounds it already, each wait of the driver for an actor is one of these, and named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from rlaif.errors import WaitTimeoutError

_T = TypeVar("_T")


async def within(timeout_s: float, awaitable: Awaitable[_T], what: str) -> _T:
    """The result of ``awaitable``; raises WaitTimeoutError naming ``what`` after ``timeout_s``."""
    waiting = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait([waiting], timeout=timeout_s)
    finally:
        waiting.cancel()  # does nothing when it is done
        waiting.add_done_callback(look_at)
    if not done:
        raise WaitTimeoutError(f"waited {timeout_s:g} s for {what}")
    return waiting.result()


def look_at(abandoned: asyncio.Future[Any]) -> None:
    """A callback for what nobody may wait for any longer: asyncio need not report what it raised."""
    if not abandoned.cancelled():
        abandoned.exception()
