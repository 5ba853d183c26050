"""The one actor class that hosts an engine: it opens it, runs tasks over it, gives it weights.

Knows no roles, no stages and no other actors. Restarts, retries and placement are left to ``actors.pool.pool``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from actors.cluster.loopback import LOOPBACK_ENVIRONMENT
from actors.cluster.whereabouts import Whereabouts, current_whereabouts
from actors.pool.gathering import Gathering
from actors.pool.shipment import AnyRecord, AnyRow, Finished
from rlaif.config.schema import PoolSettings
from rlaif.engines.turns import waits_for_turn
from rlaif.errors import EngineError, RequestError
from rlaif.interfaces import AnyEngine, Failure, Task, WeightBucket, WeightsHeader
from rlaif.places.traffic import moved_bytes

#: How much freed memory glibc keeps. New weights may be unpacked through large buffers: if these came fresh from the
#: system at each sync, their page faults would cost several times as much as the copies.
KEPT_BYTES = str(2**30)


def engine_environment(settings: PoolSettings) -> dict[str, str]:
    """Environment variables of an engine's process; libraries read them on import."""
    threads = str(settings.threads)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": KEPT_BYTES, "MALLOC_TRIM_THRESHOLD_": KEPT_BYTES}
    if settings.tensor_parallel > 1:  # its actor holds no GPU but must see that there are some
        environment["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    else:  # on clusters, too: it listens to nobody but itself
        environment |= LOOPBACK_ENVIRONMENT
    return environment


def _open(role: str, model: str, settings: PoolSettings) -> AnyEngine:
    from rlaif.engines import open_engine

    return open_engine(role, model, settings)


class EngineActor:
    """A thin shell around one engine. Call ``open`` first."""

    def __init__(self) -> None:
        self._opened: AnyEngine | None = None

    async def whereabouts(self) -> Whereabouts:
        return current_whereabouts()

    async def open(self, role: str, model: str, settings: PoolSettings) -> None:
        """Load the engine; heavy libraries are imported here, in the environment that the pool set. In a thread, so
        that this actor can tell meanwhile whether it gets on."""
        self._opened = await asyncio.to_thread(_open, role, model, settings)

    async def moved_bytes(self) -> int | None:
        """As ``rlaif.places.traffic.moved_bytes``, of this process; None while it waits for its turn on a GPU."""
        return None if waits_for_turn() else moved_bytes()

    async def run(self, task: Task[AnyRow, AnyRecord], rows: Sequence[AnyRow]) -> AsyncIterator[list[Finished]]:
        """Run ``task`` on all rows at once; yield those that finished together as one list.

        Raises EngineError when the engine is dead; a row's own failure is part of the result.
        """
        working = [asyncio.create_task(self._row(task, place, row)) for place, row in enumerate(rows)]
        try:
            async for finished in Gathering(working):
                yield finished
        finally:
            for row in working:
                row.cancel()

    async def _row(self, task: Task[AnyRow, AnyRecord], place: int, row: AnyRow) -> Finished:
        try:
            return place, await task(self._engine, row), None
        except RequestError as error:
            return place, None, Failure.of(error)
        except EngineError:
            raise
        except Exception as error:
            return place, None, Failure.of(error)

    async def stay(self) -> None:
        """Never returns: a caller that waits for it learns when this actor dies."""
        await asyncio.Event().wait()

    async def prefix_hits(self) -> tuple[int, int]:
        return self._engine.prefix_hits()

    async def begin_weights(self, header: WeightsHeader) -> None:
        await self._engine.begin_weights(header)

    async def load_weights(self, bucket: WeightBucket) -> None:
        await self._engine.load_weights(bucket)

    async def serve_weights(self) -> None:
        await self._engine.serve_weights()

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    @property
    def _engine(self) -> AnyEngine:
        assert self._opened is not None, "open comes first"
        return self._opened
