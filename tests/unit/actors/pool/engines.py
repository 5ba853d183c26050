"""Engines without actors, and what one asks of a dispatcher: for tests of the parts of a pool that know no Ray."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.pool.dispatch import Dispatch
from actors.pool.member import Member
from actors.pool.shipment import AnyDone, PoolCall
from rlaif.config.schema import PoolSettings


class FakeEngine:
    """``weights``: the versions that it was given. ``killed`` and ``closed``: its end, as the pool asked for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.where: Any = None
        self.weights: list[int] = []
        self.killed = False
        self.closed = False
        self.refusal: BaseException | None = None
        self.may_sync = asyncio.Event()
        self.may_sync.set()

    def __str__(self) -> str:
        return self.name

    async def update_weights(self, weights: Any) -> None:
        await self.may_sync.wait()
        if self.refusal:
            raise self.refusal
        self.weights.append(weights.version)

    def kill(self) -> None:
        self.killed = True

    async def close(self) -> None:
        self.closed = True


def engines(count: int) -> list[Member]:
    return [Member(FakeEngine(f"generator-{number}")) for number in range(count)]  # type: ignore[arg-type]


def dispatch_of(max_in_flight: int = 8, chunk_rows: int = 4) -> Dispatch:
    return Dispatch(PoolSettings(engine="scripted", max_in_flight=max_in_flight, chunk_rows=chunk_rows))


async def back(call: PoolCall) -> list[AnyDone] | None:
    """What a consumer gets now; an empty list when it would have to wait."""
    asking = asyncio.create_task(call.next())
    for _ in range(3):
        await asyncio.sleep(0)
    if asking.done():
        return asking.result()
    asking.cancel()
    return []
