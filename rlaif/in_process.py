"""The in-process twin: the same stages over pools and trainers of this one process, without Ray.

For laptops without vLLM (``engine: hf``), for tests of the method, and for reading: everything that a pool and a
trainer must do is here, without placement, restarts or transport.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif.config.schema import Config, PoolSettings
from rlaif.interfaces import AnyEngine, Done, Failure, Record, Row, Task, VersionedWeights, Weights
from rlaif.jobs import JobReport, PPOJob, PreferenceJob, Rank, RefreshJob, SFTJob

_CHECKPOINT_POLL_S = 0.1


class InProcessPool:
    """One engine; as many rows at once as ``max_in_flight`` allows."""

    def __init__(self, role: str, engine: AnyEngine, settings: PoolSettings) -> None:
        self.role = role
        self._engine = engine
        self._settings = settings
        self._opened = time.monotonic()

    async def run(self, task: Task[Row, Record], rows: Iterable[Row]) -> AsyncIterator[list[Done[Row, Record]]]:
        waiting = iter(rows)
        running: set[asyncio.Task[Done[Row, Record]]] = set()
        while True:
            room = self._settings.max_in_flight - len(running)
            running |= {asyncio.create_task(self._one(task, row)) for row in islice(waiting, room)}
            if not running:
                return
            finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            yield [one.result() for one in finished]

    async def _one(self, task: Task[Row, Record], row: Row) -> Done[Row, Record]:
        try:
            return Done(row=row, record=await task(self._engine, row), failure=None)
        except Exception as error:  # fails its row, never the engine
            return Done(row=row, record=None, failure=Failure.of(error))

    async def prefix_hits(self) -> tuple[int, int]:
        hits: tuple[int, int] = self._engine.prefix_hits()
        return hits

    def engine_seconds(self) -> float:
        return time.monotonic() - self._opened

    async def update_weights(self, weights: VersionedWeights) -> None:
        assert isinstance(weights, Weights)  # a learner of this process sends no references
        await self._engine.begin_weights(weights.header)
        for bucket in weights.buckets:
            await self._engine.load_weights(bucket)
        await self._engine.serve_weights()

    async def close(self) -> None:
        await self._engine.close()


@dataclass(frozen=True)
class InProcessPools:
    config: Config

    async def open(self, role: str, model: str, engines: int = 1) -> InProcessPool:
        """One engine, whatever ``engines`` says."""
        from rlaif.engines import open_engine

        settings: PoolSettings = getattr(self.config, role)
        return InProcessPool(role, open_engine(role, model, settings), settings)


class InProcessTrainers:
    """Trainers of one rank in this process, which gets all rows of each optimizer step."""

    def __init__(self, report: JobReport) -> None:
        self._report = report

    async def supervise(self, job: SFTJob) -> Mapping[str, float]:
        from rlaif.training.batches import local_batches
        from rlaif.training.learners import fit_function

        optimization = job.optimization
        batches = local_batches(job.dataset, optimization.batch_size, optimization.epochs, job.seed)
        return await asyncio.to_thread(fit_function(job), job, Rank(), batches, partial(self._report, job.name))

    async def fit_preference_model(self, job: PreferenceJob) -> Mapping[str, float]:
        from rlaif.training.batches import local_batches, read_rows
        from rlaif.training.learners import fit_function

        pretraining, fit = job.settings.pretraining, job.settings.fit
        return await asyncio.to_thread(
            fit_function(job),
            job,
            Rank(),
            local_batches(job.pretraining, pretraining.batch_size, pretraining.epochs, job.seed)
            if job.pretraining
            else None,
            local_batches(job.fit, fit.batch_size, fit.epochs, job.seed),
            read_rows(job.heldout) if job.heldout else None,
            partial(self._report, job.name),
        )

    async def policy_learner(self, job: PPOJob) -> InProcessLearner:
        # Not in a thread: transformers cannot load two models of one process at the same time.
        return InProcessLearner(job)

    async def preference_learner(self, job: RefreshJob) -> InProcessLearner:
        return InProcessLearner(job)


class InProcessLearner:
    """A resident trainer's only rank; each verb runs in a thread, so that the loops go on meanwhile."""

    def __init__(self, job: PPOJob | RefreshJob) -> None:
        from rlaif.training.learners import open_learner

        self._learner = open_learner(job, Rank())

    async def learn(self, rows: Any) -> Any:
        return await asyncio.to_thread(self._learner.learn, rows)

    async def weights(self) -> Weights:
        """All of them, because the learner may go on before they are served."""
        return await asyncio.to_thread(self._whole_weights)

    def _whole_weights(self) -> Weights:
        weights = self._learner.weights()
        return replace(weights, buckets=list(weights.buckets))

    async def save(self, path: Path) -> None:
        await asyncio.to_thread(self._learner.save, path)

    async def begin_checkpoint(self, path: Path) -> None:
        await asyncio.to_thread(self._learner.begin_checkpoint, path)

    async def finish_checkpoint(self) -> None:
        while not await asyncio.to_thread(self._learner.finish_checkpoint):
            await asyncio.sleep(_CHECKPOINT_POLL_S)

    async def close(self) -> None:
        self._learner.close()
