"""Bounded waits: whatever the driver waits for from an actor, and no watch bounds, goes through here and is named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from rlaif.errors import WaitTimeoutError

T = TypeVar("T")


async def within(timeout_s: float, awaitable: Awaitable[T], what: str) -> T:
    """The result of ``awaitable``; raises WaitTimeoutError naming ``what`` after ``timeout_s``."""
    waiting = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait([waiting], timeout=timeout_s)
    finally:
        waiting.cancel()  # which a result does not mind
    if not done:
        raise WaitTimeoutError(f"waited {timeout_s:g} s for {what}")
    return waiting.result()
