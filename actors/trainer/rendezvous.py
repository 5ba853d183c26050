"""Where the ranks of a fit leave the addresses and numbers by which their process group is formed.

Torch's TCP store listens on every interface and asks nobody who they are; who reads it learns the number that NCCL asks
for. This store is an actor, so it is reached as every other actor is, with Ray's token. It knows no torch, which would
cost its process 70 MiB; a rank's side of it is in ``actors.trainer.process_group``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class Rendezvous:
    """An actor: what the ranks of one process group have set, by key. Nothing is ever taken out."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changed = asyncio.Condition()

    async def set(self, key: str, value: bytes) -> None:
        async with self._changed:
            self._set(key, value)

    async def add(self, key: str, amount: int) -> int:
        """The sum of all amounts so far; like every store of torch, this one keeps numbers as decimal digits."""
        async with self._changed:
            total = int(self._values.get(key, b"0")) + amount
            self._set(key, str(total).encode())
            return total

    def _set(self, key: str, value: bytes) -> None:
        self._values[key] = value
        self._changed.notify_all()

    async def has(self, keys: Sequence[str]) -> bool:
        return all(key in self._values for key in keys)

    async def when_set(self, keys: Sequence[str], timeout_s: float) -> list[bytes] | None:
        """The values as soon as there are all; None after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: all(key in self._values for key in keys))
        except TimeoutError:
            return None
        return [self._values[key] for key in keys]
