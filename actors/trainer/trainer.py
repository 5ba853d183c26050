"""Trainers on a cluster: DeepSpeed ranks under Ray Train. Implements ``rlaif.interfaces.Trainers``.

``fit()`` blocks, so it runs in a thread. Ray Train starts the ranks, makes their process group, watches them and
restarts the group up to ``max_failures`` times when a rank's process dies or its communication breaks; any other error
of a rank would only come again, and ends the fit at once. A trainer whose controller or mailbox dies is lost as a
whole: a fit is then begun again, a resident trainer raises TrainerLostError, and reinforcement goes on from its last
checkpoint. What a rank does is ``actors.trainer.ranks`` and ``rlaif.training``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, RayTrainError, TrainingFailedError, WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cluster.causes import cause_of, death_of
from actors.cluster.logs import log_tail
from actors.cluster.placement import rank_resources
from actors.cluster.waiting import within
from actors.cluster.weights import SharedWeights
from actors.cluster.whereabouts import Whereabouts
from actors.trainer.feeding import EveryRowToEveryRank, count_rows, epochs_of
from actors.trainer.mailbox import POLL_S, Mailbox, Seen, Verb
from actors.trainer.ranks import learner_rank, preference_rank, supervise_rank, take_weights
from rlaif.config.schema import Trainer
from rlaif.errors import RlaifError, RunError, TrainerLostError, WaitTimeoutError
from rlaif.jobs import JobReport, PPOJob, PreferenceJob, RefreshJob, Report, SFTJob

logger = logging.getLogger(__name__)

T = TypeVar("T")
TrainerJob = SFTJob | PreferenceJob | PPOJob | RefreshJob
CLOSE_TIMEOUT_S = 30.0
MAILBOX_TIMEOUT_S = POLL_S + 30.0
#: What a rank raises when another process died or the network broke: the group is started again.
PASSING = (RuntimeError, OSError, RayError)


class RayTrainers:
    """``storage_path``: of Ray Train's own state, seen by all nodes; ``report`` gets the metrics of fits."""

    def __init__(self, storage_path: Path, report: JobReport | None = None) -> None:
        self._storage_path = storage_path
        self._report = report
        self._fits: dict[str, Fit] = {}  #: the last of each name

    async def ranks(self) -> dict[str, dict[int, Whereabouts]]:
        """Where the ranks of each trainer run that is at work now. Raises WaitTimeoutError."""
        found = {name: await fit.ranks() for name, fit in tuple(self._fits.items()) if fit.goes_on}
        return {name: {rank: seen.where for rank, seen in ranks.items()} for name, ranks in found.items()}

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
            logger.warning("%s; it begins again", error)
        finally:
            await fit.abort()
        return await self._fitted(name, rank, job, datasets, restarts - 1)


class RayLearner:
    """A resident trainer's ranks, obeying one order at a time. Implements ``rlaif.interfaces.PolicyLearner`` and
    ``PreferenceLearner``, by its job."""

    def __init__(self, fit: Fit, trainer: Trainer) -> None:
        self._fit = fit
        self._timeout_s = trainer.step_timeout_s
        self._number = 0
        self._rank_0: Any = None  #: kept, because Ray keeps a little of each handle that travels in a message
        self._turn = asyncio.Lock()

    async def whereabouts(self) -> dict[int, Whereabouts]:
        """Where each rank runs now."""
        return {rank: seen.where for rank, seen in (await self._fit.ranks()).items()}

    async def learn(self, rows: Any) -> Any:
        """Raises what a rank raises, WaitTimeoutError when nothing moves for ``step_timeout_s``."""
        return await self._order("learn", ray.put(rows))

    async def weights(self) -> SharedWeights:
        """The current weights by reference, owned by this process: they outlive the ranks."""
        while True:  # a rank that dies before its weights are here is started again, max_failures times
            version: int = await self._order("weights")
            rank = self._rank_0 = self._rank_0 or (await self._fit.ranks())[0].handle
            # Ray Train's own way to call a function in a rank. The version comes here, the weights stay where they are.
            taken, weights = rank.execute.options(num_returns=2).remote(take_weights)
            try:
                if await within(self._timeout_s, taken, f"the weights of version {version}") == version:
                    return SharedWeights(version=version, ref=weights)
            except RayActorError:
                self._rank_0 = None
            except WaitTimeoutError as error:
                raise WaitTimeoutError(f"{error} {await self._fit.told()}") from None

    async def save(self, path: Path) -> None:
        await self._order("save", str(path))

    async def save_checkpoint(self, path: Path) -> None:
        """From now on, ranks that are restarted go on from here."""
        await self._order("save_checkpoint", str(path))

    async def close(self) -> None:
        """Let the ranks stop, or stop them."""
        with contextlib.suppress(RlaifError):
            await within(CLOSE_TIMEOUT_S, self._order("stop"), "the ranks to stop")
        await self._fit.abort()

    async def _order(self, verb: Verb, payload: Any = None) -> Any:
        async with self._turn:
            self._number += 1
            await self._fit.ask(self._fit.mailbox.place.remote(self._number, verb, payload))
            return await self._fit.answer_to(self._number, f"to answer '{verb}'")


class Fit:
    """One ``TorchTrainer.fit()`` in a thread, and the mailbox of its ranks."""

    def __init__(self, name: str, rank: Any, job: TrainerJob, datasets: dict[str, Any], storage_path: Path) -> None:
        self._name = name
        self._trainer = job.trainer
        # Beside the driver: it needs no CPU, so Ray would put it on any node, and that node's loss would end the fit.
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=beside)
        self.mailbox = mailbox.remote(getattr(job, "checkpoint", None))
        trainer = TorchTrainer(
            rank,
            train_loop_config={"job": job, "mailbox": self.mailbox},
            torch_config=torch_config(job.trainer),
            scaling_config=scaling_config(job.trainer),
            run_config=run_config(name, job.trainer, storage_path, self.mailbox),
            datasets=datasets,
            dataset_config=EveryRowToEveryRank(),
        )
        # Ray Train reads these where fit() is called, and hands them on.
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(job.trainer.start_timeout_s)
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
        self._fit = asyncio.create_task(asyncio.to_thread(trainer.fit))

    @property
    def goes_on(self) -> bool:
        return not self._fit.done()

    async def result(self, report: Report | None) -> Any:
        """What rank 0 returned. Metrics go to ``report`` as they come. Raises what a rank raised, WaitTimeoutError when
        nothing moves any more."""
        while not self._fit.done():
            reports = asyncio.ensure_future(self.ask(self.mailbox.reports.remote()))
            await asyncio.wait([self._fit, reports], return_when=asyncio.FIRST_COMPLETED)
            for metrics in await reports:
                if report is not None:
                    report(metrics)
            if not self._fit.done():
                await self._check_that_they_move("to take a step")
        try:
            return self._fit.result().return_value
        except (TrainingFailedError, RayError) as error:
            await self.ranks()  # raises TrainerLostError when their mailbox is dead: ranks fail with it
            raise cause_of_failure(self._name, error) from error

    async def ask(self, answer: Awaitable[T]) -> T:
        """What the mailbox answers. Raises TrainerLostError when it is dead, WaitTimeoutError when it is stuck."""
        try:
            return await within(MAILBOX_TIMEOUT_S, answer, f"the mailbox of {self._name}")
        except RayActorError as error:
            raise TrainerLostError(f"{self._name}: its mailbox died: {death_of(error)}") from error

    async def answer_to(self, number: int, what: str) -> Any:
        """Rank 0's answer to an order. Raises what a rank raised, WaitTimeoutError when nothing moves any more."""
        while True:
            answer = asyncio.ensure_future(self.ask(self.mailbox.answer_to.remote(number)))
            await asyncio.wait([self._fit, answer], return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and (found := await answer) is not None:
                return found.result
            if self._fit.done():
                await self.result(None)
                raise RunError(f"{self._name}: the ranks ended before they were told to stop")
            await self._check_that_they_move(what)

    async def _check_that_they_move(self, what: str) -> None:
        """Raises WaitTimeoutError after ``step_timeout_s`` without a sign of the ranks, while they are started or
        started again after ``start_timeout_s``. Batches that restarted ranks learn again are signs."""
        silence = await self.ask(self.mailbox.silence.remote())
        most = self._trainer.start_timeout_s if silence.starting else self._trainer.step_timeout_s
        if silence.seconds > most:
            raise WaitTimeoutError(f"waited {most:g} s for the ranks of {self._name} {what} {await self.told()}")

    async def told(self) -> str:
        """Where the ranks are, when each last asked for an order, and the end of the log of the one that is longest
        silent."""
        ranks = await self.ranks()
        if not ranks:
            return "(none started)"
        lines = (f"rank {rank} on {seen.where}, asked {seen.idle_s:.0f} s ago" for rank, seen in sorted(ranks.items()))
        silent = max(ranks.values(), key=lambda seen: seen.idle_s)
        return f"({'; '.join(lines)}){await log_tail(silent.where)}"

    async def ranks(self) -> dict[int, Seen]:
        """The ranks that have started."""
        return await self.ask(self.mailbox.ranks.remote())

    async def abort(self) -> None:
        """End the ranks, if they have not ended, and wait for ``fit()``."""
        with contextlib.suppress(RlaifError):  # ranks whose mailbox is dead end by themselves
            if not self._fit.done():
                await self.ask(self.mailbox.close.remote())
                for seen in (await self.ranks()).values():
                    ray.kill(seen.handle)
        with contextlib.suppress(RlaifError, TrainingFailedError, RayError):
            await within(CLOSE_TIMEOUT_S, self._fit, f"the ranks of {self._name} to end")
        ray.kill(self.mailbox)


class FinalFailures(UserCallback):
    """In Ray Train's controller: raises for failures that a restart cannot mend, which ends the fit.

    An error of Ray Train's own says that a rank's process died or is silent; any other was raised in it.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if ray.get(self._mailbox.failed.remote()):
            raise RunError("the trainer was closed")
        for rank, error in sorted(worker_exceptions.items()):
            if not isinstance(error, RayTrainError) and not may_pass(error):
                raise named(f"rank {rank}", error)


def may_pass(error: BaseException) -> bool:
    """Whether a rank raised it because something else died, so that a restart may mend it."""
    return isinstance(cause_of(error), PASSING)


def named(where: str, error: BaseException) -> RlaifError:
    """``error`` as one of ours that says where it came from; user mistakes stay what they are."""
    cause = cause_of(getattr(error, "health_check_failure", error))
    if isinstance(cause, RlaifError):
        return type(cause)(f"{where}: {cause}")
    said = death_of(cause) if isinstance(cause, RayError) else f"{type(cause).__name__}: {cause}"
    return RunError(f"{where}: {said}")


def cause_of_failure(name: str, error: BaseException) -> RlaifError:
    """The root of a failed fit: a rank's own error, or its death, before that of one that lost its neighbour."""
    logger.debug("%s failed", name, exc_info=error)
    if isinstance(error, RayActorError):
        return TrainerLostError(f"{name}: its controller died: {death_of(error)}")
    if isinstance(error, ControllerError):
        return named(name, error.controller_failure)
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        failures = sorted(error.worker_failures.items(), key=lambda item: may_pass(item[1]))
        rank, failure = failures[0]
        return named(f"{name}: rank {rank}", failure)
    return named(name, error)


def torch_config(trainer: Trainer) -> TorchConfig:
    return TorchConfig(backend="nccl" if trainer.gpus else "gloo", timeout_s=int(trainer.step_timeout_s))


def scaling_config(trainer: Trainer) -> ScalingConfig:
    resources = {name: amount for name, amount in rank_resources(trainer).items() if amount}
    return ScalingConfig(
        num_workers=trainer.ranks, use_gpu=trainer.gpus > 0, resources_per_worker=resources or {"CPU": 0}
    )


def run_config(name: str, trainer: Trainer, storage_path: Path, mailbox: Any) -> RunConfig:
    threads = str(trainer.threads)
    environment = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    }
    return RunConfig(
        name=f"{name}-{secrets.token_hex(4)}",
        storage_path=str(storage_path.absolute() / "ray_train"),
        failure_config=FailureConfig(max_failures=trainer.max_failures, controller_failure_limit=trainer.max_failures),
        callbacks=[FinalFailures(mailbox)],
        worker_runtime_env={"env_vars": environment},
    )
