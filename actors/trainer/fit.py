"""One fit of Ray Train: the thread that it blocks, the mailbox of its ranks, and how it is set up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2.api.exceptions import TrainingFailedError

from actors.cluster import remote
from actors.cluster.causes import death_of
from actors.cluster.logs import log_tail
from actors.cluster.waiting import look_at, within
from actors.trainer.failures import FinalFailures, cause_of_failure
from actors.trainer.feeding import EveryRowToEveryRank
from actors.trainer.mailbox import MAILBOX_POLL_S, Mailbox, StartedRank
from actors.trainer.process_group import torch_config
from rlaif.config.trainer import Trainer
from rlaif.errors import RlaifError, RunError, TrainerLostError, WaitTimeoutError
from rlaif.jobs import PPOJob, PreferenceJob, RefreshJob, Report, SFTJob
from rlaif.sizes.phases import rank_resources

_T = TypeVar("_T")
TrainerJob = SFTJob | PreferenceJob | PPOJob | RefreshJob
RANKS_CLOSE_TIMEOUT_S = 30.0
ANSWER_GRACE_S = 60.0
MAILBOX_TIMEOUT_S = MAILBOX_POLL_S + 30.0


class Fit:
    """One ``TorchTrainer.fit()`` in a thread, and the mailbox of its ranks."""

    def __init__(self, name: str, rank: Any, job: TrainerJob, datasets: dict[str, Any], storage_path: Path) -> None:
        self._name = name
        self._trainer = job.trainer
        # On the driver's node: it needs no CPU, so Ray would put it on any, and that node's loss would end the fit.
        here = remote.on_node(remote.this_node())
        checkpoint = getattr(job, "checkpoint", None)
        self.mailbox = remote.start_actor(Mailbox, checkpoint, num_cpus=0, scheduling_strategy=here)
        os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # read where fit() is called; the same for all trainers
        self._started: dict[int, StartedRank] = {}  #: as the mailbox last told; it may be stuck when they must end
        self._num_started = 0
        self._fit = remote.in_thread(torch_trainer(name, rank, job, datasets, storage_path, self.mailbox).fit)
        self._fit.add_done_callback(look_at)

    @property
    def is_running(self) -> bool:
        return not self._fit.done()

    async def result(self, report: Report | None) -> Any:
        """What rank 0 returned. Metrics go to ``report`` as they come. Raises what a rank raised, WaitTimeoutError when
        the ranks make no progress any more."""
        taken = 0
        while not self._fit.done():
            taken += self._take(await self._while_fitting(self.mailbox.reports.remote(taken)), report)
            if not self._fit.done():
                await self._check_progress("to take a step")
        try:
            result = self._fit.result().return_value
            await self.ask(self.mailbox.close.remote())  # then it does not wait for more reports
            self._take(await self.ask(self.mailbox.reports.remote(taken)), report)
            return result
        except (TrainingFailedError, RayError) as error:
            await self.ranks()  # raises TrainerLostError when their mailbox is dead: ranks fail with it
            raise cause_of_failure(self._name, error) from error

    async def ask(self, answer: Awaitable[_T]) -> _T:
        """What the mailbox answers. Raises TrainerLostError when it is dead, WaitTimeoutError when it is stuck."""
        try:
            return await within(MAILBOX_TIMEOUT_S, answer, f"the mailbox of {self._name}")
        except RayActorError as error:
            raise TrainerLostError(f"{self._name}: its mailbox died: {death_of(error)}") from error

    @staticmethod
    def _take(reports: Sequence[Mapping[str, float]] | None, report: Report | None) -> int:
        """Pass reports on; returns how many."""
        for metrics in reports or ():
            if report is not None:
                report(metrics)
        return len(reports or ())

    async def _while_fitting(self, answer: Awaitable[_T]) -> _T | None:
        """What the mailbox answers; None when the fit ends before."""
        asking = asyncio.ensure_future(self.ask(answer))
        try:
            await asyncio.wait([self._fit, asking], return_when=asyncio.FIRST_COMPLETED)
            return await asking if asking.done() else None
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def answer_to(self, number: int, what: str) -> Any:
        """Rank 0's answer to an order. Raises what a rank raised, WaitTimeoutError when the ranks make no progress."""
        while True:
            reply = await self._while_fitting(self.mailbox.answer_to.remote(number))
            if reply is not None:
                return reply.result
            if self._fit.done():
                await self.result(None)
                raise RunError(f"{self._name}: the ranks ended before they were asked to stop")
            await self._check_progress(what)

    async def _check_progress(self, what: str) -> None:
        """Raises WaitTimeoutError after ``silence_timeout_s`` without a sign of the ranks; while they are being started
        or restarted, after ``start_timeout_s``. How long they work does not matter: they beat meanwhile, and a rank
        that hangs soon stops the others."""
        silence = await self.ask(self.mailbox.silence.remote())
        if silence.num_started != self._num_started:
            await self.ranks()
            self._num_started = silence.num_started
        most = self._trainer.start_timeout_s if silence.starting else self._trainer.silence_timeout_s
        if silence.seconds > most:
            raise WaitTimeoutError(
                f"waited for the ranks of {self._name} {what}, which gave no sign of life for {most:g} s "
                f"{await self.describe_ranks()}"
            )

    async def describe_ranks(self) -> str:
        """Where the ranks are, when each last gave a sign, and the end of the log of the one that has been silent
        longest."""
        ranks = await self.ranks()
        if not ranks:
            return "(none started)"
        lines = (
            f"rank {rank} on {seen.where}, silent for {seen.silent_s:.0f} s" for rank, seen in sorted(ranks.items())
        )
        silent = max(ranks.values(), key=lambda seen: seen.silent_s)
        return f"({'; '.join(lines)}){await log_tail(silent.where)}"

    async def ranks(self) -> dict[int, StartedRank]:
        """The ranks that have started."""
        self._started = await self.ask(self.mailbox.ranks.remote())
        return self._started

    async def abort(self) -> None:
        """End the ranks, if they have not ended, and wait for ``fit()``, as long as is reasonable: its thread ends with
        this process."""
        try:
            if not self._fit.done():
                with contextlib.suppress(RlaifError):  # its mailbox may be dead or stuck
                    await self.ask(self.mailbox.close.remote())
                    await self.ranks()
                for seen in self._started.values():
                    remote.kill_actor(seen.handle)
            with contextlib.suppress(Exception):  # what it raised is told by whoever waited for its result
                await within(RANKS_CLOSE_TIMEOUT_S, self._fit, f"the ranks of {self._name} to end")
        finally:
            remote.kill_actor(self.mailbox)


class Timeouts(ControllerCallback):
    """In Ray Train's controller: how long it waits for its ranks to start, and for the processes of ranks at work to
    answer. The latter is longer than ``Fit`` waits, which knows what they do.

    Ray Train takes these only from variables of the environment. In the driver all trainers would share them, and two
    that start at the same time may want different ones; each controller is a process of its own.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._start_s = trainer.start_timeout_s
        self._answer_s = max(trainer.start_timeout_s, trainer.silence_timeout_s) + ANSWER_GRACE_S

    def after_controller_start(self, train_run_context: Any) -> None:
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(self._start_s)
        os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(self._answer_s)


def torch_trainer(
    name: str, rank: Any, job: TrainerJob, datasets: dict[str, Any], storage_path: Path, mailbox: Any
) -> TorchTrainer:
    return TorchTrainer(
        rank,
        train_loop_config={"job": job, "mailbox": mailbox},
        torch_config=torch_config(job.trainer),
        scaling_config=scaling_config(job.trainer),
        run_config=run_config(name, job.trainer, storage_path, mailbox),
        datasets=datasets,
        dataset_config=EveryRowToEveryRank(),
    )


def scaling_config(trainer: Trainer) -> ScalingConfig:
    resources = {name: amount for name, amount in rank_resources(trainer).items() if amount}
    return ScalingConfig(
        num_workers=trainer.ranks,
        use_gpu=trainer.gpus > 0,
        resources_per_worker=resources or {"CPU": 0},
        placement_strategy="STRICT_PACK" if trainer.shares_a_node else "PACK",
    )


def run_config(name: str, trainer: Trainer, storage_path: Path, mailbox: Any) -> RunConfig:
    threads = str(trainer.optimizer_threads)
    environment = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    }
    return RunConfig(
        name=f"{name}-{secrets.token_hex(4)}",
        storage_path=str(storage_path.absolute()),
        failure_config=FailureConfig(max_failures=trainer.max_failures, controller_failure_limit=trainer.max_failures),
        callbacks=[FinalFailures(mailbox), Timeouts(trainer)],
        worker_runtime_env={"env_vars": environment},
    )
