"""Does the driver's memory grow with the number of rows? Goal: below 600 MiB for 1,000,000 rows.

    python -m benchmarks.driver_memory --json FILE [--rows N]

One real stage at scale: the driver reads a file of N prompts, a scripted engine in a Ray actor answers each of them,
and the driver journals every answer and exports all of them to parquet. Reports the driver's own proportional set size:
its peak, and its course over the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from actors.cluster.start import open_cluster
from actors.pool.pool import RayPools
from benchmarks.machine import publish
from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import pass_over
from rlaif.records import Answer
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir
from rlaif.tasks.sampling import Draw, SampleAnswer, draws

SAMPLES = 20


def write_prompts(path: Path, num_rows: int) -> None:
    with path.open("w") as file:
        for row in range(num_rows):
            file.write(json.dumps({"prompt": f"How do I do thing {row}?"}) + "\n")


class Watch(Silent):
    """Records the driver's memory as rows come back."""

    def __init__(self, num_rows: int) -> None:
        self._every = max(1, num_rows // SAMPLES)
        self._rows = 0
        self.course: list[dict[str, float]] = []

    def advance(self, name: str, failed: bool = False) -> None:
        self._rows += 1
        if self._rows % self._every == 0:
            self.note()

    def note(self) -> None:
        pss = psutil.Process().memory_full_info().pss
        self.course.append({"rows": self._rows, "pss_mib": round(pss / 2**20, 1)})


async def answer_all(config: Config, directory: Path, watch: Watch) -> None:
    run = Run(
        config=config,
        constitution=load_constitution(config.constitution),
        run_dir=RunDir(directory / "run", config),
        paths={},
        pools=RayPools(config),
        trainers=None,  # type: ignore[arg-type]  # nothing is trained
        progress=watch,
    )
    task = SampleAnswer(snapshot="scripted", dialogue_format=config.dialogue_format, sampling=config.sampling)

    def rows() -> Iterator[Draw]:
        prompts = read_prompts(config.data.red_team, "red_team", pass_over)
        return (draw for prompt in prompts for draw in draws(prompt, 1, config.seed))

    await record(run, Recording(kind="answers", task=task, rows=rows, role="generator", model=""))
    await run.release()
    run.run_dir.journal.export(Answer, "answers", directory / "answers.parquet")
    watch.note()
    run.run_dir.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    watch, started_at = Watch(arguments.rows), time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        prompts = Path(directory) / "prompts.jsonl"
        write_prompts(prompts, arguments.rows)
        config = Config.model_validate(
            {
                "data": {"red_team": str(prompts)},
                "sampling": {"max_tokens": 8},
                "generator": {"engine": "scripted", "max_length": 256, "chunk_rows": 256, "max_in_flight": 1024},
                "resources": {"cpus": 2, "object_store_gib": 0.5},
            }
        )
        with open_cluster(config):
            asyncio.run(answer_all(config, Path(directory), watch))
    result = {
        "rows": arguments.rows,
        "seconds": round(time.monotonic() - started_at, 1),
        "peak_pss_mib": max(at["pss_mib"] for at in watch.course),
        "course": watch.course,
    }
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
