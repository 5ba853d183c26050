"""A resident trainer and a fit in a simulated cluster: ranks, their mailbox and the controller of Ray Train fail, the
driver is cancelled, and whatever happens is checked when it is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from actors.cluster.waiting import look_at
from actors.trainer.failures import describe_failure, is_passing
from actors.trainer.mailbox import Mailbox, RankReply
from actors.trainer.trainer import RayLearner, RayTrainers
from rlaif.config.trainer import Trainer
from rlaif.errors import RunError
from tests.unit.actors.simulation.cluster import Cluster, Handle, SimulatedActor
from tests.unit.actors.simulation.loop import SimulatedLoop
from tests.unit.actors.simulation.pool import header_of, run_story


@dataclass(frozen=True)
class Job:
    """``steps``: of a fit; a resident trainer has as many as it is told. ``wrong_at``: the step at which it raises."""

    trainer: Trainer
    steps: int
    wrong_at: int | None = None
    checkpoint: str | None = None
    name: str = "supervise"


class SimulatedRank:
    """``actors.trainer.ranks`` without ``ray.get``, which no loop can simulate."""

    simulated: SimulatedActor

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.buckets: list[Any] = []  # of the weights that the driver is taking
        self.ready: Any = None
        self.writing: tuple[str, tuple[Any, ...], float] | None = None  # a checkpoint, and when it will be there

    async def fit(self, job: Job, mailbox: Any, index: int) -> Any:
        await self._register(mailbox, index)
        sent = []
        for step in range(job.steps):
            await self._work(mailbox, index)
            if step == job.wrong_at:
                raise ValueError("a loss that is no number")
            if index == 0:
                sent.append(mailbox.report.remote({"supervise/step": step}))
        for report in sent:
            await report
        return {"supervise/loss": 0.0}, job.steps

    async def learn(self, job: Job, mailbox: Any, index: int) -> None:
        checkpoint, done = await self._register(mailbox, index)
        self.batches = list(self.simulated.cluster.checkpoints.get(checkpoint, []))
        await self._answer(mailbox, index, RankReply(number=0))
        while True:
            while (order := await mailbox.next_order.remote(index, done)) is None:
                pass
            if order.verb == "stop":
                break
            await self._work(mailbox, index)
            result = await self._obey(order, job)
            await self._answer(mailbox, index, RankReply(number=order.number, result=result))
            done = order.number
        await self._answer(mailbox, index, RankReply(number=order.number))

    async def _work(self, mailbox: Any, index: int) -> None:
        """One order or step: a few passes, or many, which together take longer than ranks may be silent."""
        choices = self.simulated.cluster.loop.choices
        for _ in range(choices.choice([1, 1, 1, 12])):
            await self.simulated.wait(choices.random() * 20)
            asyncio.ensure_future(mailbox.beat.remote(index)).add_done_callback(look_at)

    async def execute(self, take_bucket: Any) -> Any:
        ready, self.ready = self.ready, None
        return ready is not None, ready

    async def _obey(self, order: Any, job: Job) -> Any:
        if order.verb == "learn":
            self.batches.append(await order.payload)
            if len(self.batches) == job.wrong_at:
                raise ValueError("a loss that is no number")
            return tuple(self.batches)
        if order.verb == "weights":  # in as many buckets as batches were learned
            self.buckets = list(enumerate(self.batches))
            return header_of(len(self.batches), len(self.batches))
        if order.verb == "bucket":
            self.ready = self.buckets.pop(0) if self.buckets else None
            return self.ready is not None
        if order.verb == "begin_checkpoint":
            loop = self.simulated.cluster.loop
            self.writing = order.payload, tuple(self.batches), loop.time() + loop.choices.random() * 300
        if order.verb == "finish_checkpoint":
            return self._finish_checkpoint()
        return len(self.batches)

    def _finish_checkpoint(self) -> bool:
        cluster = self.simulated.cluster
        if self.writing is None:
            cluster.wrong.append("a checkpoint is finished that was not begun")
            return True
        path, batches, there = self.writing
        if cluster.loop.time() < there:
            return False
        cluster.checkpoints[path] = batches
        return True

    async def _register(self, mailbox: Any, index: int) -> Any:
        actor = self.simulated
        return await mailbox.start_point.remote(index, Handle(actor), actor.where())

    async def _answer(self, mailbox: Any, index: int, reply: RankReply) -> None:
        if index == 0:
            await mailbox.answer.remote(reply)


class SimulatedController:
    """Ray Train's, as far as ``Fit`` sees it, with ``FinalFailures`` in it."""

    simulated: SimulatedActor

    async def fit(self, job: Job, mailbox: Any, verb: str) -> Any:
        failures = 0
        while True:
            await self.simulated.wait()
            cluster = self.simulated.cluster
            ranks = [cluster.start_actor(SimulatedRank) for _ in range(job.trainer.ranks)]
            self.ranks = ranks
            calls = [getattr(rank, verb).remote(job, mailbox, index) for index, rank in enumerate(ranks)]
            tasks = [asyncio.ensure_future(call) for call in calls]
            for task in tasks:
                task.add_done_callback(look_at)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                self.end_ranks()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            errors = {rank: error for rank, error in enumerate(outcomes) if isinstance(error, Exception)}
            if not errors:
                return outcomes[0]
            try:
                closing = await mailbox.note_failure.remote()
            except Exception as error:
                raise ControllerError(error) from error
            if closing:
                raise ControllerError(RunError("the trainer was closed"))
            for rank, error in errors.items():
                if not is_passing(error):
                    raise ControllerError(describe_failure(f"rank {rank}", error))
            failures += 1
            if failures > job.trainer.max_failures:
                raise WorkerGroupError("they died", errors)

    def end_ranks(self) -> None:
        for rank in self.ranks:
            self.simulated.cluster.kill_actor(rank)


class TrainerCluster(Cluster):
    def __init__(self, loop: SimulatedLoop, **faults: Any) -> None:
        super().__init__(loop, **faults)
        self.checkpoints: dict[str | None, Any] = {}
        self.wrong: list[str] = []
        self.rest_s = 2000.0  # a rank learns that its mailbox is dead when it has taken all of its steps
        self.on_end = self._end_ranks

    @contextlib.contextmanager
    def in_place_of_ray(self) -> Any:
        with super().in_place_of_ray(), mock.patch("actors.trainer.fit.torch_trainer", self.torch_trainer):
            yield

    def torch_trainer(self, name: str, rank: Any, job: Job, datasets: Any, path: Path, mailbox: Any) -> Any:
        controller = self.start_actor(SimulatedController)

        async def fit() -> Any:
            try:
                return SimpleNamespace(return_value=await controller.fit.remote(job, mailbox, rank))
            except RayTaskError as error:
                raise error.cause from error
            finally:
                self.kill_actor(controller)

        return SimpleNamespace(fit=fit)

    def _end_ranks(self, actor: SimulatedActor) -> None:
        """Ranks live no longer than their controller."""
        if isinstance(actor.instance, SimulatedController) and hasattr(actor.instance, "ranks"):
            actor.instance.end_ranks()

    async def at_rest(self) -> list[str]:
        """A controller that hangs is Ray Train's, and lives as long as the driver; so does a rank that hangs and that
        nobody knows: it had not come to its mailbox, or the mailbox is lost as well."""
        self.rate = 0.0
        for actor in self.actors:
            if actor.hung.is_set() and not self._is_known(actor):
                self.kill_actor(Handle(actor))
        return [*self.wrong, *await super().at_rest()]

    def _is_known(self, actor: SimulatedActor) -> bool:
        """Whether the driver could have ended it."""
        mailboxes = [a for a in self.actors if isinstance(a.instance, Mailbox) and a.killed and not a.hung.is_set()]
        known = [handle._actor for mailbox in mailboxes for handle, _ in mailbox.instance._ranks.values()]
        return isinstance(actor.instance, Mailbox) or actor in known


class TrainerStory:
    """``problems``: the invariants that did not hold."""

    def __init__(self, loop: SimulatedLoop, cluster: TrainerCluster, job: Job, cancelled_after: float | None) -> None:
        self.loop = loop
        self.choices = loop.choices
        self.cluster = cluster
        self.job = job
        self.cancelled_after = cancelled_after
        self.problems: list[str] = []
        self.reports: list[float] = []
        self.ended = False

    async def live(self, story: str) -> None:
        working = asyncio.create_task(getattr(self, story)())
        await asyncio.wait([working], timeout=self.cancelled_after)
        if not working.done():
            working.cancel()
            await asyncio.wait([working], timeout=900)
        if not working.done():
            self.problems.append("its end is never reached")
        elif not working.cancelled() and (error := working.exception()):
            expected = self.cluster.happened or self.job.wrong_at is not None
            if not isinstance(error, RunError) or not expected:
                self.problems.append(f"{error!r}")
        self.problems += await self.cluster.at_rest()

    def _report(self, name: str, metrics: Mapping[str, float]) -> None:
        self.reports.append(metrics["supervise/step"])

    async def fit(self) -> None:
        trainers = RayTrainers(Path("/nowhere"), self._report)
        await trainers._fit_rows("supervise", "fit", self.job, {}, self.job.steps)  # type: ignore[arg-type]
        steps = list(range(self.job.steps))
        if self.reports[len(self.reports) - len(steps) :] != steps:
            self.problems.append(f"reports are lost or doubled: {self.reports} of {len(steps)}")
        if not self.cluster.happened and len(self.reports) != len(steps):
            self.problems.append(f"reports are doubled: {self.reports} of {len(steps)}")

    async def learn(self) -> None:
        trainers = RayTrainers(Path("/nowhere"))
        with mock.patch("actors.trainer.trainer.learner_rank", "learn"):
            learner = await trainers._learner("reinforce", self.job)  # type: ignore[arg-type]
        try:
            await self._teach(learner)
        finally:
            await learner.close()

    async def _teach(self, learner: RayLearner) -> None:
        writing = asyncio.create_task(asyncio.sleep(0))
        try:
            for step in range(self.choices.choice([1, 8])):
                learned = await learner.learn(step)
                if learned != tuple(range(step + 1)):
                    self.problems.append(f"step {step} was learned after {learned}")
                if self.choices.random() < 0.5:
                    await self._take_weights(learner, learned)
                if self.choices.random() < 0.5 and writing.done():
                    await writing
                    await learner.begin_checkpoint(Path(f"checkpoint-{step}"))
                    writing = asyncio.create_task(learner.finish_checkpoint())
                await asyncio.sleep(self.choices.random() * 20)
            await writing
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _take_weights(self, learner: RayLearner, learned: tuple[Any, ...]) -> None:
        weights = await learner.weights()
        buckets = [await bucket for bucket in weights.buckets]
        if weights.version != len(learned) or buckets != list(enumerate(learned)):
            self.problems.append(f"weights of version {weights.version} after step {len(learned) - 1}")


def trainer_story(seed: int) -> list[str]:
    """The problems of one schedule."""
    loop = SimulatedLoop(seed)
    choices = loop.choices
    cluster = TrainerCluster(loop, rate=choices.choice([0.0, 0.005, 0.02, 0.1]), budget=choices.choice([1, 2, 5]))
    cluster.faults = tuple(choices.sample(cluster.faults, choices.choice([1, 2, 6])))
    if choices.random() < 0.5:  # what ends ranks only is mended; most other faults end the trainer
        cluster.immune = lambda actor: not isinstance(actor.instance, SimulatedRank)
    trainer = Trainer(
        engine="scripted",
        ranks=choices.choice([1, 2]),
        start_timeout_s=100,
        silence_timeout_s=60,
        max_failures=choices.choice([0, 2, 5]),
    )
    job = Job(trainer, steps=choices.choice([1, 5]), wrong_at=choices.choice([None, None, None, 1]))
    story = TrainerStory(loop, cluster, job, choices.choice([None, None, choices.random() * 100]))
    return run_story(loop, cluster, story.problems, story.live(choices.choice(["fit", "learn"])))
