"""Rows and tasks that do to an engine what the tests of the pool need."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    id: str
    number: int


def rows(count: int) -> list[Row]:
    return [Row(id=f"rows:{number}", number=number) for number in range(count)]


@dataclass(frozen=True)
class Double:
    """Twice the number, after ``seconds``; what is named in the other fields does what they are called."""

    name: str = "double"
    seconds: float = 0.0
    raises: frozenset[int] = frozenset()
    kills: frozenset[int] = frozenset()
    blocks: frozenset[int] = frozenset()

    async def __call__(self, engine: Any, row: Row) -> tuple[int, int]:
        """(2 x number, pid of the engine's process)"""
        if row.number in self.raises:
            raise ValueError(f"row {row.number} cannot be doubled\nand this line is not part of the cause")
        if row.number in self.kills:
            os._exit(7)
        if row.number in self.blocks:
            time.sleep(3600)
        await asyncio.sleep(self.seconds)
        return 2 * row.number, os.getpid()


@dataclass(frozen=True)
class Version:
    """The policy version that the engine serves, after ``seconds``."""

    name: str = "version"
    seconds: float = 0.0

    async def __call__(self, engine: Any, row: Row) -> int:
        await asyncio.sleep(self.seconds)
        return engine.policy_version
