"""What runs in a rank under Ray Train: it builds the ``Rank``, feeds ``rlaif.training``, and talks to the mailbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import ray.train.torch
import torch

from actors.cluster.whereabouts import current_whereabouts
from actors.trainer.feeding import Shares
from actors.trainer.heartbeat import Heartbeat
from actors.trainer.mailbox import Order, RankReply
from rlaif.interfaces import WeightBucket
from rlaif.jobs import PPOJob, PreferenceJob, Rank, RefreshJob, SFTJob
from rlaif.training.batches import read_rows
from rlaif.training.learners import fit_function, open_learner

if TYPE_CHECKING:
    from rlaif.training.learners import RankLearner

REPORTS_ON_THEIR_WAY = 64  #: at most, before a rank waits for them
_buckets: list[WeightBucket] = []  #: in rank 0: what the driver is about to take

RankConfig = Mapping[str, Any]  #: of a rank: its ``job`` and the ``mailbox``
FitResult = tuple[dict[str, float], int]  #: metrics, rows seen by all ranks


def supervise_rank(config: RankConfig) -> FitResult:
    job: SFTJob = config["job"]
    rank = _rank(config)
    _register(config, rank)
    shares = Shares("train", job.optimization, rank)
    reports = Reports(config["mailbox"], rank)
    metrics = fit_function(job)(job, rank, shares, reports.send)
    reports.wait()
    return metrics, _total(shares.num_rows)


def preference_rank(config: RankConfig) -> FitResult:
    job: PreferenceJob = config["job"]
    rank = _rank(config)
    _register(config, rank)
    pretraining = Shares("pretraining", job.settings.pretraining, rank) if job.pretraining else None
    fit = Shares("fit", job.settings.fit, rank)
    heldout = read_rows(job.heldout) if job.heldout else None
    reports = Reports(config["mailbox"], rank)
    metrics = fit_function(job)(job, rank, pretraining, fit, heldout, reports.send)
    reports.wait()
    return metrics, _total(fit.num_rows + (pretraining.num_rows if pretraining else 0))


def learner_rank(config: RankConfig) -> None:
    """Obey orders until one says to stop; after a restart, go on from the last checkpoint."""
    job: PPOJob | RefreshJob = config["job"]
    mailbox = config["mailbox"]
    rank = _rank(config)
    checkpoint, done = _register(config, rank)
    obedient = ObedientLearner(open_learner(replace(job, checkpoint=checkpoint), rank))
    _answer(mailbox, rank, RankReply(number=0))
    while (order := _next_order(mailbox, rank, done)).verb != "stop":
        _answer(mailbox, rank, RankReply(number=order.number, result=obedient.obey(order)))
        done = order.number
    _answer(mailbox, rank, RankReply(number=order.number))


class ObedientLearner:
    """A rank's learner, and its weights while the driver takes them, a bucket at a time."""

    def __init__(self, learner: RankLearner) -> None:
        self._learner = learner
        self._gathering: Iterator[WeightBucket] = iter(())

    def obey(self, order: Order) -> Any:
        """The result of an order. That of "bucket" is whether there is one: a rank that was started since "weights" has
        none, and neither have the others of its group."""
        if order.verb == "learn":
            return self._learner.learn(ray.get(order.payload))
        if order.verb == "weights":
            weights = self._learner.weights()
            self._gathering = iter(weights.buckets)
            return weights.header
        if order.verb == "bucket":
            _buckets[:] = islice(self._gathering, 1)
            return bool(_buckets)
        if order.verb == "save":
            return self._learner.save(order.payload)
        if order.verb == "begin_checkpoint":
            return self._learner.begin_checkpoint(order.payload)
        return self._learner.finish_checkpoint()


def take_bucket() -> tuple[bool, WeightBucket | None]:
    """Whether there is a bucket, and the bucket. The driver calls this in rank 0's process, because what an actor
    returns belongs to its caller and outlives the actor. (False, None) in a rank that was started since the order."""
    return (True, _buckets.pop()) if _buckets else (False, None)


def _next_order(mailbox: Any, rank: Rank, done: int) -> Order:
    while (order := ray.get(mailbox.next_order.remote(rank.index, done))) is None:
        pass
    return order


def _answer(mailbox: Any, rank: Rank, answer: RankReply) -> None:
    if rank.index == 0:
        ray.get(mailbox.answer.remote(answer))


def _rank(config: RankConfig) -> Rank:
    """This process as a rank, whose beats go to the mailbox from now on."""
    context, mailbox = ray.train.get_context(), config["mailbox"]
    index = context.get_world_rank()
    heartbeat = Heartbeat(lambda: mailbox.beat.remote(index), config["job"].trainer.silence_timeout_s)
    heartbeat.watch_files()
    return Rank(index=index, world_size=context.get_world_size(), beat=heartbeat.beat)


def _register(config: RankConfig, rank: Rank) -> tuple[str | None, int]:
    handle = ray.get_runtime_context().current_actor
    return ray.get(config["mailbox"].start_point.remote(rank.index, handle, current_whereabouts()))


class Reports:
    """Rank 0's metrics, which go out as they come. The rank waits for them now and then, and at its end; one that was
    lost on its way fails the rank, which is started again."""

    def __init__(self, mailbox: Any, rank: Rank) -> None:
        self._mailbox = mailbox
        self._is_sent = rank.index == 0
        self._sent: list[Any] = []

    def send(self, metrics: Mapping[str, float]) -> None:
        if self._is_sent:
            self._sent.append(self._mailbox.report.remote(dict(metrics)))
        if len(self._sent) >= REPORTS_ON_THEIR_WAY:
            self.wait()

    def wait(self) -> None:
        """Until the mailbox has them all."""
        ray.get(self._sent)
        self._sent.clear()


def _total(count: int) -> int:
    """The sum of ``count`` over all ranks."""
    on_cpu = torch.distributed.get_backend() == "gloo"  # scripted ranks hold GPUs without using them
    total = torch.tensor(count, device="cpu" if on_cpu else ray.train.torch.get_device())
    torch.distributed.all_reduce(total)
    return int(total.item())
