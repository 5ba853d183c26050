"""Waits of one loop for another: each says what it waits for, and each is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from rlaif.errors import WaitTimeoutError

_T = TypeVar("_T")


class Waits:
    """What every loop is waiting for. When one has waited too long, the error names all of them: a deadlock involves
    several loops, and each looks innocent by itself."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._waiting: dict[str, str] = {}

    async def __call__(self, loop: str, what: str, awaitable: Awaitable[_T]) -> _T:
        """The result of ``awaitable``. Raises WaitTimeoutError after ``timeout_s``."""
        self._waiting[loop] = what
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                return await awaitable
        except TimeoutError:
            if not limit.expired():
                raise
            others = [f"{name} for {thing}" for name, thing in self._waiting.items() if name != loop]
            meanwhile = f"; meanwhile waiting: {', '.join(others)}" if others else ""
            raise WaitTimeoutError(f"{loop} waited {self._timeout_s:g} s for {what}{meanwhile}") from None
        finally:
            del self._waiting[loop]
