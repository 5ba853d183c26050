"""Trainers under Ray Train with real DeepSpeed ranks: no row is lost, causes surface, a lost rank costs no batch."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from actors.trainer.mailbox import MAILBOX_POLL_S
from actors.trainer.trainer import RayTrainers
from rlaif.config.schema import Optimization, Reinforcement
from rlaif.config.trainer import Trainer
from rlaif.errors import DataError, WaitTimeoutError
from rlaif.in_process import InProcessLearner
from rlaif.interfaces import Weights
from rlaif.jobs import PPOJob, SFTJob
from rlaif.records import ScoredSample
from tests.tiny_models import saved, tensors_of, tiny_lm, tiny_pm

pytestmark = pytest.mark.usefixtures("cluster")

NUM_ROWS = 37
TRAINER = Trainer(ranks=2, cpus=0.5, max_failures=1)


@ray.remote
class Holder:
    """Holds CPUs, as engines do."""

    def ready(self) -> None: ...


@pytest.fixture
def no_cpu_left_but_for_the_ranks() -> Any:
    free = ray.available_resources()["CPU"] - TRAINER.ranks * TRAINER.cpus
    holder = Holder.options(num_cpus=free).remote()
    ray.get(holder.ready.remote())
    yield
    ray.kill(holder)


def sft_job(tmp_path: Path, **changes: Any) -> SFTJob:
    rows = [{"id": str(i), "input_ids": [1 + i, 2, 3, 4 + i, 0], "prompt_length": 2} for i in range(NUM_ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=10)
    fields: dict[str, Any] = {
        "base_model": saved(tiny_lm(0, tied=True), tmp_path / "base"),
        "dataset": str(tmp_path / "rows.parquet"),
        "output": str(tmp_path / "out"),
        "max_length": 64,
        "optimization": Optimization(epochs=2, batch_size=8, learning_rate=1e-3, warmup_steps=0),
        "trainer": TRAINER,
        "seed": 3,
    }
    return SFTJob(**{**fields, **changes})


async def test_two_ranks_see_every_row_although_actors_hold_all_other_cpus(
    tmp_path: Path, no_cpu_left_but_for_the_ranks: None
) -> None:
    reported: list[Any] = []
    trainers = RayTrainers(tmp_path, lambda name, metrics: reported.append((name, set(metrics))))
    metrics = await trainers.supervise(sft_job(tmp_path))
    assert metrics["supervise/data/num_rows"] == 2 * NUM_ROWS
    assert metrics["supervise/optimization/num_steps"] == 10
    assert reported == [("supervise", {"supervise/loss/step", "supervise/grad/norm"})] * 10
    assert (tmp_path / "out" / "model.safetensors").is_file()


async def test_the_cause_of_a_rank_that_fails_surfaces_without_a_restart(tmp_path: Path) -> None:
    job = sft_job(tmp_path, max_length=2, trainer=Trainer(ranks=1, cpus=0.5, max_failures=2))
    before = num_ranks_started()
    with pytest.raises(DataError, match=r"supervise: rank 0: .*: no row has an answer within max_length=2"):
        await RayTrainers(tmp_path).supervise(job)
    assert num_ranks_started() == before + 1


def num_ranks_started() -> int:
    """All that were ever started on this cluster."""
    return sum(actor["ActorClassName"] == "RayTrainWorker" for actor in ray._private.state.actors().values())


async def test_trainers_that_start_at_the_same_time_have_each_its_own_start_timeout(tmp_path: Path) -> None:
    policy = saved(tiny_lm(0, tied=True), tmp_path / "policy")
    trainers = RayTrainers(tmp_path)

    async def started(timeout_s: float) -> Any:
        trainer = Trainer(cpus=0.5, engine="scripted", start_timeout_s=timeout_s)
        settings = Reinforcement(batch_size=4, minibatch_size=2)
        return await trainers.policy_learner(
            PPOJob(policy=policy, preference_model=None, settings=settings, temperature=1.0, trainer=trainer, seed=5)
        )

    learners = await asyncio.gather(started(111), started(222))
    try:  # Ray Train hands its settings on from a controller to its ranks, where they can be seen
        ranks = [(await learner._fit.ranks())[0].handle for learner in learners]
        settings = [ray.get(rank.execute.remote(os.getenv, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S")) for rank in ranks]
    finally:
        await asyncio.gather(*(learner.close() for learner in learners))
    assert list(map(float, settings)) == [111, 222]


async def test_an_unreadable_data_set_is_found_before_ranks_start(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"bad\.parquet: cannot be read as parquet"):
        await RayTrainers(tmp_path).supervise(sft_job(tmp_path, dataset=str(tmp_path / "bad.parquet")))


async def test_a_fit_that_stands_still_ends_with_the_ranks_whereabouts(tmp_path: Path) -> None:
    # Until the first step is over, the ranks count as starting; the second step begins with a row that takes too long.
    trainer = Trainer(cpus=0.5, engine="scripted", scripted={"row_s": 15.0}, silence_timeout_s=2)
    optimization = Optimization(epochs=1, batch_size=1)
    where = r"to take a step, which gave no sign of life for 2 s \(rank 0 on .*, silent for \d+ s"
    with pytest.raises(WaitTimeoutError, match=rf"waited for the ranks of supervise {where}"):
        await RayTrainers(tmp_path).supervise(sft_job(tmp_path, trainer=trainer, optimization=optimization))


async def scripted_learner(tmp_path: Path, **trainer: Any) -> Any:
    return await RayTrainers(tmp_path).policy_learner(
        PPOJob(
            policy=saved(tiny_lm(0, tied=True), tmp_path / "policy"),
            preference_model=None,
            settings=Reinforcement(batch_size=4, minibatch_size=2),
            temperature=1.0,
            trainer=Trainer(cpus=0.5, engine="scripted", **trainer),
            seed=5,
        )
    )


async def test_an_order_may_take_several_times_as_long_as_ranks_may_be_silent(tmp_path: Path) -> None:
    learner = await scripted_learner(tmp_path, scripted={"row_s": 1.0}, silence_timeout_s=3)
    try:
        started = time.monotonic()
        learned = await learner.learn([sample for number in range(3) for sample in batch(number)])
        assert time.monotonic() - started > 9, "three times as long"
    finally:
        await learner.close()
    assert learned.version == 1


async def test_a_rank_that_falls_silent_in_a_long_order_is_noticed_within_the_limit(tmp_path: Path) -> None:
    learner = await scripted_learner(tmp_path, scripted={"row_s": 0.5}, silence_timeout_s=4)
    try:
        long_order = asyncio.create_task(learner.learn([sample for number in range(60) for sample in batch(number)]))
        await asyncio.sleep(8)
        assert not long_order.done()
        os.kill((await learner.whereabouts())[0].pid, signal.SIGSTOP)  # alive, and says nothing
        stopped = time.monotonic()
        with pytest.raises(
            WaitTimeoutError, match=r"to answer 'learn', which gave no sign of life for 4 s \(rank 0 on"
        ):
            await long_order
        # the mailbox is asked every MAILBOX_POLL_S, and the log of the silent rank is read
        assert time.monotonic() - stopped < 4 + 2 * MAILBOX_POLL_S
    finally:
        await learner.close()


async def test_batches_that_are_learned_again_may_take_longer_than_one(tmp_path: Path) -> None:
    learner = await scripted_learner(tmp_path, scripted={"row_s": 0.5}, silence_timeout_s=7, max_failures=1)
    try:
        for number in range(5):
            await learner.learn(batch(number))
            await learner.weights()
        os.kill((await learner.whereabouts())[0].pid, signal.SIGKILL)
        learned = await learner.learn(batch(5))  # 12 s, after a restart
    finally:
        await learner.close()
    assert learned.version == 6


def batch(seed: int) -> list[ScoredSample]:
    rng = np.random.default_rng(seed)
    return [
        ScoredSample(
            id=f"{seed}:{i}",
            axis="red_team",
            prompt_ids=tuple(rng.integers(0, 200, 5).tolist()),
            response_ids=tuple(rng.integers(0, 200, 4 + i).tolist()),
            logprobs=tuple([-5.0] * (4 + i)),
            finish_reason="length",
            score=float(rng.normal()),
            policy_version_start=seed,
            preference_model_version=0,
        )
        for i in range(4)
    ]


async def test_a_killed_rank_loses_no_batch_of_the_policy_learner(tmp_path: Path) -> None:
    job = PPOJob(
        policy=saved(tiny_lm(0, tied=True), tmp_path / "policy"),
        preference_model=saved(tiny_pm(1), tmp_path / "pm"),
        settings=Reinforcement(
            batch_size=4, minibatch_size=2, learning_rate=1e-3, value_learning_rate=1e-3, warmup_steps=0
        ),
        temperature=1.0,
        trainer=TRAINER,
        seed=5,
    )
    learner = await RayTrainers(tmp_path).policy_learner(job)
    try:
        await learner.learn(batch(0))
        await learner.begin_checkpoint(tmp_path / "checkpoint")
        await learner.finish_checkpoint()
        await learner.learn(batch(1))
        early = ray.get(list((await learner.weights()).buckets))
        os.kill((await learner.whereabouts())[0].pid, signal.SIGKILL)
        learned = await learner.learn(batch(2))  # after a restart: checkpoint, batch 1 again, batch 2
        shared = await learner.weights()
        weights = Weights(header=shared.header, buckets=ray.get(list(shared.buckets)))
        await learner.save(tmp_path / "rl_cai")
    finally:
        await learner.close()
    assert (learned.version, shared.version) == (3, 3) and early
    assert (tmp_path / "rl_cai" / "model.safetensors").is_file()

    twin = InProcessLearner(job)  # one rank, never killed
    for number in range(3):
        expected = await twin.learn(batch(number))
    assert learned.kl == pytest.approx(expected.kl, abs=1e-4)
    for name, tensor in tensors_of(await twin.weights()).items():
        np.testing.assert_allclose(tensors_of(weights)[name], tensor, atol=1e-4, err_msg=name)
