"""Where the ranks of a fit leave the addresses and numbers by which their process group is formed.

Torch's TCP store listens on every interface and asks nobody who they are; who reads it learns the number that NCCL asks
for. This store is an actor, so it is reached as every other actor is, with Ray's token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import ray
from torch.distributed import Store


class Rendezvous:
    """An actor: what the ranks of one process group have set, by key. Nothing is ever taken out."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changed = asyncio.Condition()

    async def set(self, key: str, value: bytes) -> None:
        async with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    async def add(self, key: str, amount: int) -> int:
        """The sum of all amounts so far; like every store of torch, this one keeps numbers as decimal digits."""
        total = int(self._values.get(key, b"0")) + amount
        await self.set(key, str(total).encode())
        return total

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


class RendezvousStore(Store):
    """A rank's side of ``rendezvous``, as torch asks for it: these five methods, from any of its threads.

    What torch's process groups need of a store is stated by ``torch.distributed.elastic``'s own ``EtcdStore``.
    """

    def __init__(self, rendezvous: Any, timeout: timedelta) -> None:
        super().__init__()
        self._rendezvous = rendezvous
        self._timeout = timeout

    def set(self, key: str, value: str | bytes) -> None:
        ray.get(self._rendezvous.set.remote(key, value.encode() if isinstance(value, str) else bytes(value)))

    def get(self, key: str) -> bytes:
        """Raises LookupError when nobody sets ``key`` in time."""
        return self._when_set([key], self._timeout)[0]

    def add(self, key: str, amount: int) -> int:
        total: int = ray.get(self._rendezvous.add.remote(key, amount))
        return total

    def check(self, keys: list[str]) -> bool:
        found: bool = ray.get(self._rendezvous.has.remote(keys))
        return found

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Raises LookupError when not all are set in time."""
        self._when_set(keys, timeout or self._timeout)

    def _when_set(self, keys: list[str], timeout: timedelta) -> list[bytes]:
        values: list[bytes] | None = ray.get(self._rendezvous.when_set.remote(keys, timeout.total_seconds()))
        if values is None:
            raise LookupError(f"no rank has set {', '.join(keys)} within {timeout.total_seconds():g} s")
        return values
