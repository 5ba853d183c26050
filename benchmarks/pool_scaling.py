"""How many labellers can one driver keep busy?

    python -m benchmarks.pool_scaling --json FILE

One ``EnginePool`` runs 1 to 64 scripted labellers in Ray actors. Rows are of 1 KB; a labeller serves them one at a
time, 50 ms each, in chunks of 64. Every result is streamed back and journalled as soon as it arrives.

``efficiency``: for each number of labellers, rows per second divided by (labellers / 50 ms), in a window of
``WINDOW_S`` once all are working. Everything shares this machine, so the CPU time of the actors themselves counts as a
loss, too.
``dispatch_rows_per_s``: rows per second without service time, for the best of a few numbers of labellers: how fast one
driver can hand rows out, take results back and journal them. ``saturates_at``: that rate divided by the labels per
second of one real labeller (vLLM, the miniature's feedback model, both orders), which is the number of labellers at
which the driver becomes the bottleneck.
Goals: efficiency at least 0.95 at 32; dispatch at least 5,000 rows/s.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.cluster.start import open_cluster
from actors.pool.pool import EnginePool, RayPools
from benchmarks.labelling import Texts, label_task
from benchmarks.machine import publish
from benchmarks.scripted_labellers import SERVICE_S, Judge, comparisons, scripted_config
from rlaif.config.schema import Config, Miniature
from rlaif.constitution.principles import load_constitution
from rlaif.miniature.make import make
from rlaif.storage.journal import Journal

SIZES = (1, 2, 4, 8, 16, 32, 64)
DISPATCHERS = (1, 2, 4)
WARM_UP_S, WINDOW_S = 3.0, 10.0
DISPATCH_ROWS = 60_000
REAL_PAIRS = 600


async def labels_per_s(pool: EnginePool, journal: Journal, kind: str) -> float:
    """Rows journalled per second in a window of an endless stream of rows."""
    warm_at, began, count = time.perf_counter() + WARM_UP_S, None, 0
    async for back in pool.run(Judge(), comparisons(kind)):
        journal.add_all(kind, (done.record for done in back))
        now = time.perf_counter()
        if began is not None:
            count += len(back)
            if now >= began + WINDOW_S:
                return count / (now - began)
        elif now >= warm_at:
            began = now  # this list was done before the window began
    raise AssertionError("the endless stream of rows ended")


async def efficiencies(directory: Path, sizes: tuple[int, ...]) -> dict[int, float]:
    config = scripted_config(str(directory), low=1, high=max(sizes), service_s=SERVICE_S)
    journal, by_size = Journal(directory / "journal.sqlite"), {}
    pool = await RayPools(config).open("labeller", "")
    for size in sizes:
        await pool.resize(size)
        rate = await labels_per_s(pool, journal, f"labels/{size}")
        by_size[size] = round(rate * SERVICE_S / size, 4)
        print(f"{size} labellers: {rate:.1f} rows/s, efficiency {by_size[size]:.3f}", flush=True)
    await pool.close()
    journal.close()
    return by_size


async def dispatch(directory: Path, size: int) -> float:
    """Rows per second without service time."""
    config = scripted_config(str(directory), low=size, high=size, service_s=0.0)
    journal = Journal(directory / f"dispatch-{size}.sqlite")
    pool = await RayPools(config).open("labeller", "")
    await _label(pool, journal, "warm-up", Judge(), comparisons("warm-up", 2_000))
    rate = DISPATCH_ROWS / await _label(pool, journal, "labels", Judge(), comparisons("labels", DISPATCH_ROWS))
    print(f"{size} labellers without service time: {rate:.0f} rows/s", flush=True)
    await pool.close()
    journal.close()
    return rate


async def one_real_labeller(directory: Path) -> float:
    """Labels per second of vLLM with the miniature's feedback model, in both orders, on dialogues of 300 tokens."""
    constitution = load_constitution("sixteen_principles")
    miniature = make(Miniature(), constitution)
    texts, task = Texts(miniature), label_task(constitution, 1)
    engine = {"threads": 2, "max_length": 1024, "max_in_flight": 256, "chunk_rows": 64, "kv_cache_gib": 0.5}
    config = Config.model_validate({"labeller": engine})
    journal = Journal(directory / "real.sqlite")
    pool = await RayPools(config).open("labeller", str(miniature.path("feedback")))
    await _label(pool, journal, "warm-up", task, [texts.pair(f"warm-up-{i}") for i in range(REAL_PAIRS // 4)])
    rate = REAL_PAIRS / await _label(pool, journal, "real", task, [texts.pair(f"{i}") for i in range(REAL_PAIRS)])
    await pool.close()
    journal.close()
    return rate


async def _label(pool: EnginePool, journal: Journal, kind: str, task: Any, rows: Any) -> float:
    """Seconds to label and journal all rows."""
    began = time.perf_counter()
    async for back in pool.run(task, rows):
        journal.add_all(kind, (done.record for done in back))
    return time.perf_counter() - began


async def measure(directory: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    rates = {size: round(await dispatch(directory, size)) for size in DISPATCHERS}
    efficiency = await efficiencies(directory, sizes)
    real = await one_real_labeller(directory)
    return {
        "efficiency": {str(size): value for size, value in efficiency.items()},
        "dispatch_rows_per_s": max(rates.values()),
        "dispatch_by_labellers": {str(size): rate for size, rate in rates.items()},
        "real_labels_per_s": round(real, 1),
        "saturates_at": round(max(rates.values()) / real, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as path, open_cluster(scripted_config(path, low=1, high=1, service_s=0.0)):
        result = asyncio.run(measure(Path(path), tuple(arguments.sizes)))
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
