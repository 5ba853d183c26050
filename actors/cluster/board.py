"""Where a run and the commands of its user exchange JSON: the key-value store of the cluster's head.

A command only asks this store. If it joined the cluster, it would receive objects, and Ray unpickles those: whoever
owns the cluster could run code as the one who asks. Needs Ray's token where the cluster does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray._raylet import GcsClient  # type: ignore[attr-defined]

BOARD_TIMEOUT_S = 10.0  #: for one question to the store
ORDER, ANSWER = "order/", "answer/"


class Board:
    """The orders and answers of the run whose Ray namespace is ``namespace``. All methods raise ray's RayError."""

    def __init__(self, address: str, namespace: str) -> None:
        self._store: Any = GcsClient(address=address)
        self._rest = {"namespace": f"rlaif/{namespace}".encode(), "timeout": BOARD_TIMEOUT_S}

    # ----------------------------------------------------------------------------------------- for a command
    def put_order(self, key: str, order: bytes) -> None:
        self._store.internal_kv_put(f"{ORDER}{key}".encode(), order, True, **self._rest)

    def answer_to(self, key: str) -> bytes | None:
        """None while there is no answer."""
        answer: bytes | None = self._store.internal_kv_get(f"{ANSWER}{key}".encode(), **self._rest)
        return answer

    def forget(self, key: str) -> None:
        """Take an order and its answer down."""
        for kind in (ORDER, ANSWER):
            self._store.internal_kv_del(f"{kind}{key}".encode(), False, **self._rest)

    # ----------------------------------------------------------------------------------------- for the driver
    async def orders(self) -> Mapping[str, bytes]:
        """All that are not answered, by key."""
        keys = await self._store.async_internal_kv_keys(ORDER.encode(), **self._rest)
        orders = await self._store.async_internal_kv_multi_get(keys, **self._rest) if keys else {}
        return {name.decode().removeprefix(ORDER): order for name, order in orders.items()}

    async def put_answer(self, key: str, answer: bytes) -> None:
        """The order goes last, so that an answer that did not arrive is given again."""
        await self._store.async_internal_kv_put(f"{ANSWER}{key}".encode(), answer, True, **self._rest)
        await self._store.async_internal_kv_del(f"{ORDER}{key}".encode(), False, **self._rest)
