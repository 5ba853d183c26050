"""Rows, and tasks that make an engine behave, fail or hang as the pool's tests need."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.errors import EngineError
from rlaif.records import Sampling


@dataclass(frozen=True)
class Row:
    id: str
    number: int


def rows(count: int) -> list[Row]:
    return [Row(id=f"rows:{number}", number=number) for number in range(count)]


@dataclass(frozen=True)
class Double:
    """Twice the number, after ``seconds``; rows listed in ``raises``, ``kills`` or ``blocks`` do that instead."""

    name: str = "double"
    seconds: float = 0.0
    raises: frozenset[int] = frozenset()
    kills: frozenset[int] = frozenset()
    blocks: frozenset[int] = frozenset()
    breaks_engine_unless: str | None = None  #: a file; while it does not exist, a row makes it and breaks the engine

    async def __call__(self, engine: Any, row: Row) -> tuple[int, int]:
        """(2 x number, pid of the engine's process)."""
        if row.number in self.raises:
            raise ValueError(f"row {row.number} cannot be doubled\nand this line is not part of the cause")
        if row.number in self.kills:
            os._exit(7)
        if row.number in self.blocks:
            time.sleep(3600)
        if self.breaks_engine_unless and not Path(self.breaks_engine_unless).exists():
            Path(self.breaks_engine_unless).touch()
            raise EngineError("the engine's thread died")
        await asyncio.sleep(self.seconds)
        return 2 * row.number, os.getpid()


@dataclass(frozen=True)
class Ask:
    """The engine's answer to a short prompt."""

    name: str = "ask"

    async def __call__(self, engine: Any, row: Row) -> str:
        sampling = Sampling(max_tokens=8, temperature=1.0, seed=row.number)
        return (await engine.generate([65], sampling)).text


@dataclass(frozen=True)
class Version:
    """The policy version that the engine serves, after ``seconds``."""

    name: str = "version"
    seconds: float = 0.0

    async def __call__(self, engine: Any, row: Row) -> int:
        await asyncio.sleep(self.seconds)
        return engine.policy_version


@dataclass(frozen=True)
class SpoilSync:
    """From now on the engine cannot take new weights: its thread dies, or it never finishes."""

    name: str = "spoil_sync"
    hangs: bool = False

    async def __call__(self, engine: Any, row: Row) -> None:
        async def serve_weights() -> None:
            if self.hangs:
                await asyncio.sleep(3600)
            raise EngineError("the engine's thread died")

        engine.serve_weights = serve_weights


@dataclass(frozen=True)
class Unpicklable:
    name: str = "unpicklable"

    async def __call__(self, engine: Any, row: Row) -> Any:
        return threading.Lock()
