"""Trainers on a cluster: DeepSpeed ranks under Ray Train. Implements ``rlaif.interfaces.Trainers``.

``fit()`` blocks, so it runs in a thread. Ray Train starts the ranks, makes their process group, watches them and
restarts the group up to ``max_failures`` times when a rank's process dies or its communication breaks; an error raised
by a rank's own code would recur, so it ends the fit at once. A trainer whose controller or mailbox dies is lost as a
whole: a fit then begins again, a resident trainer raises TrainerLostError, and reinforcement goes on from its last
checkpoint. What a rank does is in ``actors.trainer.ranks`` and ``rlaif.training``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError

from actors.cluster import remote
from actors.cluster.waiting import within
from actors.cluster.weights import SharedWeights
from actors.cluster.whereabouts import Whereabouts
from actors.trainer.feeding import count_rows, epochs_of
from actors.trainer.fit import RANKS_CLOSE_TIMEOUT_S, Fit
from actors.trainer.mailbox import Verb
from actors.trainer.ranks import learner_rank, preference_rank, supervise_rank, take_bucket
from rlaif.config.trainer import Trainer
from rlaif.errors import RlaifError, RunError, TrainerLostError, WaitTimeoutError
from rlaif.interfaces import WeightsHeader
from rlaif.jobs import JobReport, PPOJob, PreferenceJob, RefreshJob, SFTJob

_logger = logging.getLogger(__name__)
_CHECKPOINT_POLL_S = 1.0


class RayTrainers:
    """``storage_path``: where Ray Train keeps its own state, seen by all nodes; ``report`` gets the metrics of fits."""

    def __init__(self, storage_path: Path, report: JobReport | None = None) -> None:
        self._storage_path = storage_path
        self._report = report
        self._fits: dict[str, Fit] = {}  #: the last of each name

    async def ranks(self) -> dict[str, dict[int, Whereabouts]]:
        """Where the ranks of each trainer run that is at work now. Raises WaitTimeoutError."""
        started = {name: await fit.ranks() for name, fit in tuple(self._fits.items()) if fit.is_running}
        return {name: {number: rank.where for number, rank in ranks.items()} for name, ranks in started.items()}

    async def supervise(self, job: SFTJob) -> Mapping[str, float]:
        """Raises DataError for an unreadable data set, what the ranks raise, and RunError when rows were lost."""
        expected = count_rows(job.dataset) * job.optimization.epochs
        datasets = epochs_of("train", job.dataset, job.optimization.epochs, job.seed)
        return await self._fit_rows("supervise", supervise_rank, job, datasets, expected)

    async def fit_preference_model(self, job: PreferenceJob) -> Mapping[str, float]:
        """Raises as ``supervise``."""
        settings = job.settings
        expected = count_rows(job.fit) * settings.fit.epochs
        datasets = epochs_of("fit", job.fit, settings.fit.epochs, job.seed)
        if job.pretraining:
            expected += count_rows(job.pretraining) * settings.pretraining.epochs
            datasets |= epochs_of("pretraining", job.pretraining, settings.pretraining.epochs, job.seed)
        return await self._fit_rows("fit_preference_model", preference_rank, job, datasets, expected)

    async def policy_learner(self, job: PPOJob) -> RayLearner:
        """Start the ranks and wait until they have loaded their networks."""
        return await self._learner("reinforce", job)

    async def preference_learner(self, job: RefreshJob) -> RayLearner:
        """Start the ranks and wait until they have loaded the model."""
        return await self._learner("refresh", job)

    async def _learner(self, name: str, job: PPOJob | RefreshJob) -> RayLearner:
        fit = self._fits[name] = Fit(name, learner_rank, job, {}, self._storage_path)
        learner = RayLearner(fit, job.trainer)
        try:
            await fit.answer_to(0, "to load their networks")
        except BaseException:
            await fit.abort()
            raise
        return learner

    async def _fit_rows(
        self, name: str, rank: Any, job: SFTJob | PreferenceJob, datasets: dict[str, Any], expected: int
    ) -> Mapping[str, float]:
        metrics, seen = await self._fitted(name, rank, job, datasets, job.trainer.max_failures)
        if seen != expected:
            raise RunError(f"{name}: {expected} rows went in, the ranks saw {seen}")
        return metrics

    async def _fitted(
        self, name: str, rank: Any, job: SFTJob | PreferenceJob, datasets: dict[str, Any], restarts: int
    ) -> Any:
        """What rank 0 returned; a trainer that is lost begins again, ``restarts`` times at most."""
        fit = self._fits[name] = Fit(name, rank, job, datasets, self._storage_path)
        try:
            return await fit.result(partial(self._report, job.name) if self._report else None)
        except TrainerLostError as error:
            if not restarts:
                raise
            _logger.warning("%s; it begins again", error)
        finally:
            await fit.abort()
        return await self._fitted(name, rank, job, datasets, restarts - 1)


class RayLearner:
    """A resident trainer's ranks, obeying one order at a time. Implements ``rlaif.interfaces.PolicyLearner`` and
    ``PreferenceLearner``, by its job."""

    def __init__(self, fit: Fit, trainer: Trainer) -> None:
        self._fit = fit
        self._timeout_s = trainer.silence_timeout_s
        self._number = 0
        self._rank_0: Any = None  #: kept, because Ray keeps a little of each handle that travels in a message
        self._turn = asyncio.Lock()

    async def whereabouts(self) -> dict[int, Whereabouts]:
        """Where each rank runs now."""
        return {rank: seen.where for rank, seen in (await self._fit.ranks()).items()}

    async def learn(self, rows: Any) -> Any:
        """Raises what a rank raises, WaitTimeoutError after ``silence_timeout_s`` without progress."""
        return await self._order("learn", remote.put(rows))

    async def weights(self) -> SharedWeights:
        """The current weights by reference, owned by this process: they outlive the ranks.

        Ranks gather one bucket after the other, each within ``silence_timeout_s``. Ranks that are started again
        meanwhile (``max_failures`` times) begin with the first one: what they have learned again may differ in its last
        bits.
        """
        async with self._turn:  # nothing may be learned between two buckets
            while True:
                header: WeightsHeader = await self._give("weights")
                buckets = await self._take_buckets(header)
                if len(buckets) == header.num_buckets:
                    return SharedWeights(header=header, buckets=buckets)

    async def _take_buckets(self, header: WeightsHeader) -> list[Any]:
        """References to as many as come before a rank is lost."""
        buckets: list[Any] = []
        while len(buckets) < header.num_buckets and await self._give("bucket"):
            what = f"bucket {len(buckets) + 1} of {header.num_buckets} of the weights of version {header.version}"
            bucket = await self._take_bucket(what)
            if bucket is None:
                break
            buckets.append(bucket)
        return buckets

    async def _take_bucket(self, what: str) -> Any:
        """A reference to the bucket that rank 0 has ready; None when it is lost with the rank."""
        rank = self._rank_0 = self._rank_0 or (await self._fit.ranks())[0].handle
        # Ray Train's own way to call a function in a rank. The answer comes here, the bucket stays where it is.
        taken, bucket = rank.execute.options(num_returns=2).remote(take_bucket)
        try:
            return bucket if await within(self._timeout_s, taken, what) else None
        except RayActorError:
            self._rank_0 = None
            return None
        except WaitTimeoutError as error:
            raise WaitTimeoutError(f"{error} {await self._fit.describe_ranks()}") from None

    async def save(self, path: Path) -> None:
        await self._order("save", str(path))

    async def begin_checkpoint(self, path: Path) -> None:
        await self._order("begin_checkpoint", str(path))

    async def finish_checkpoint(self) -> None:
        """Asks the ranks between two of their orders. Once it is written, ranks that are restarted go on from there."""
        while not await self._order("finish_checkpoint"):
            await asyncio.sleep(_CHECKPOINT_POLL_S)

    async def close(self) -> None:
        """Let the ranks stop, or stop them."""
        try:
            with contextlib.suppress(RlaifError):
                await within(RANKS_CLOSE_TIMEOUT_S, self._order("stop"), "the ranks to stop")
        finally:
            await self._fit.abort()

    async def _order(self, verb: Verb, payload: Any = None) -> Any:
        async with self._turn:
            return await self._give(verb, payload)

    async def _give(self, verb: Verb, payload: Any = None) -> Any:
        """Give an order, when it is its turn."""
        self._number += 1
        await self._fit.ask(self._fit.mailbox.place.remote(self._number, verb, payload))
        return await self._fit.answer_to(self._number, f"to answer '{verb}'")
