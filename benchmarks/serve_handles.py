"""Why a pool of our own? The same rows through ``EnginePool`` and through Ray Serve's deployment handles.

    pip install "ray[serve]"        # the system itself does not need it
    python -m benchmarks.serve_handles --json FILE

Two scripted labellers, rows of 1 KB, at most 128 rows in flight for each, every result journalled. ``rows_per_s``:
throughput without service time. ``killed``: with 50 ms a row and any number of rows at once, one of the two gets
SIGKILL after a quarter of the rows; counts how many rows came back labelled and how many only as an error. With
handles, the caller would have to keep track of the failed rows and send them again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ray import serve

from actors.cluster.start import open_cluster
from actors.pool.pool import EnginePool, RayPools
from benchmarks.machine import publish
from benchmarks.scripted_labellers import CHUNK_ROWS, SERVICE_S, Judge, comparisons, scripted_config
from rlaif.config.schema import Config
from rlaif.engines import open_engine
from rlaif.storage.journal import Journal

ENGINES = 2
IN_FLIGHT = 2 * CHUNK_ROWS
FAST_ROWS, SLOW_ROWS = 10_000, 4_000


def settings(directory: str, service_s: float) -> Config:
    config = scripted_config(directory, low=ENGINES, high=ENGINES, service_s=service_s)
    script = config.labeller.scripted.model_copy(update={"concurrency": None})
    return config.model_copy(update={"labeller": config.labeller.model_copy(update={"scripted": script})})


# -------------------------------------------------------------------------------------------------------- Ray Serve
class Replica:
    """A scripted engine as a deployment; each call carries one row, since a handle balances calls."""

    def __init__(self, config: Config) -> None:
        self._engine = open_engine("labeller", None, config.labeller)

    async def label(self, pair: Any) -> tuple[int, Any]:
        return os.getpid(), await Judge()(self._engine, pair)


class Handles:
    """Rows through a deployment handle, with as many in flight as in the pool."""

    def __init__(self, config: Config) -> None:
        options = {"num_replicas": ENGINES, "max_ongoing_requests": IN_FLIGHT, "ray_actor_options": {"num_cpus": 0.01}}
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled")
        application = serve.deployment(Replica).options(**options).bind(config)
        self._handle = serve.run(application, name="labeller", route_prefix=None)

    async def stream(self, rows: Iterable[Any]) -> AsyncIterator[list[tuple[int, Any]]]:
        """(pid, record) of each row that came back; an exception takes the place of its record."""
        waiting, running = iter(rows), set()
        while True:
            room = ENGINES * IN_FLIGHT - len(running)
            running |= {asyncio.create_task(self._one(row)) for row in itertools.islice(waiting, room)}
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            yield [task.result() for task in done]

    async def _one(self, row: Any) -> tuple[int, Any]:
        try:
            return await self._handle.label.remote(row)
        except Exception as error:
            return 0, error

    def victim(self, pids: Counter) -> int:
        return pids.most_common(1)[0][0]

    async def close(self) -> None:
        await asyncio.to_thread(serve.shutdown)


# ------------------------------------------------------------------------------------------------------------- ours
class Pool:
    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    async def stream(self, rows: Iterable[Any]) -> AsyncIterator[list[tuple[int, Any]]]:
        async for back in self._pool.run(Judge(), rows):
            yield [(0, done.record or RuntimeError(done.failure and done.failure.cause)) for done in back]

    def victim(self, pids: Counter) -> int:
        return self._pool.roster.members[0].where.pid

    async def close(self) -> None:
        await self._pool.close()


@asynccontextmanager
async def open_system(way: str, config: Config) -> AsyncIterator[Any]:
    ours = way == "pool"
    system = Pool(await RayPools(config).open("labeller", "")) if ours else Handles(config)
    try:
        yield system
    finally:
        await system.close()


# -------------------------------------------------------------------------------------------------------- measuring
async def label(system: Any, journal: Journal, kind: str, num: int, kill_after: int | None = None) -> dict[str, Any]:
    """Send ``num`` rows and count the results; one engine gets SIGKILL after ``kill_after`` records."""
    began, pids, errors, records = time.perf_counter(), Counter(), Counter(), 0
    async for back in system.stream(comparisons(kind, num)):
        good = [record for _, record in back if not isinstance(record, Exception)]
        journal.add_all(kind, good)
        records += len(good)
        pids.update(pid for pid, record in back if not isinstance(record, Exception))
        errors.update(type(record).__name__ for _, record in back if isinstance(record, Exception))
        if kill_after is not None and records >= kill_after:
            os.kill(system.victim(pids), signal.SIGKILL)
            kill_after = None
    seconds = time.perf_counter() - began
    assert records + errors.total() == num
    return {"rows": num, "labelled": records, "errors": dict(errors), "rows_per_s": round(records / seconds)}


async def measure_one(way: str, directory: Path) -> dict[str, Any]:
    journal = Journal(directory / f"{way}.sqlite")
    async with open_system(way, settings(str(directory), 0.0)) as system:
        await label(system, journal, "warm-up", FAST_ROWS // 10)
        fast = await label(system, journal, "fast", FAST_ROWS)
    async with open_system(way, settings(str(directory), SERVICE_S)) as system:
        killed = await label(system, journal, "killed", SLOW_ROWS, kill_after=SLOW_ROWS // 4)
    journal.close()
    return {"rows_per_s": fast["rows_per_s"], "killed": killed}


async def measure(directory: Path) -> dict[str, Any]:
    return {way: await measure_one(way, directory) for way in ("pool", "serve")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as path, open_cluster(settings(path, 0.0)):
        result = asyncio.run(measure(Path(path)))
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
