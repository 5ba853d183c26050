"""Who gets which GPUs: engines, tensor-parallel engines, shares of a card, ranks; and what a lost node gives back."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from actors.pool.pool import EnginePool, RayPools
from actors.trainer.trainer import RayLearner, RayTrainers
from rlaif.config.schema import Config, Reinforcement
from rlaif.config.trainer import Trainer
from rlaif.engines.turns import StartTurn, turns_taken
from rlaif.jobs import PPOJob
from tests.cluster.tasks import Double, Row, rows
from tests.fake_gpus.conftest import GPUS, NODES, add_node
from tests.tiny_models import saved, tiny_lm

SCRIPTED = {"engine": "scripted", "cpus": 0.5, "max": 24, "max_in_flight": 8, "chunk_rows": 1}
START_S = 0.7


@dataclass(frozen=True)
class Place:
    """What an actor sees of GPUs, and when it started."""

    name: str = "place"

    async def __call__(self, engine: Any, row: Row) -> dict[str, Any]:
        await asyncio.sleep(0.2)  # so that every engine gets a row
        return what_is_seen()


def what_is_seen() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(),
        "ids": [str(id) for id in ray.get_gpu_ids()],
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "local_rank": os.environ.get("LOCAL_RANK"),
        "turns": turns_taken(),
    }


async def seen_by(pool: EnginePool) -> list[dict[str, Any]]:
    """What each engine of a pool sees."""
    found: dict[int, dict[str, Any]] = {}
    async for back in pool.run(Place(), rows(8 * len(pool.roster.members))):
        found |= {done.record["pid"]: done.record for done in back}
    assert len(found) == len(pool.roster.members)
    return list(found.values())


def policy_job(tmp_path: Path, **trainer: Any) -> PPOJob:
    return PPOJob(
        policy=saved(tiny_lm(0, tied=True), tmp_path / "policy"),
        preference_model=None,
        settings=Reinforcement(batch_size=4, minibatch_size=2),
        temperature=1.0,
        trainer=Trainer(engine="scripted", cpus=0.1, **trainer),
        seed=5,
    )


async def seen_by_ranks(learner: RayLearner) -> list[dict[str, Any]]:
    ranks = await learner._fit.ranks()
    return await asyncio.gather(*(ranks[number].handle.execute.remote(what_is_seen) for number in sorted(ranks)))


async def test_engines_with_a_gpu_each_see_that_one_alone(joined: Cluster) -> None:
    pool = await RayPools(Config(generator={**SCRIPTED, "gpus": 1})).open("generator", None, 6)
    try:
        seen = await seen_by(pool)
    finally:
        await pool.close()
    assert all(one["ids"] == [one["visible"]] for one in seen)
    assert len({(one["node"], one["visible"]) for one in seen}) == 6
    assert not any(one["turns"] for one in seen), "whole cards wait for nobody"


async def test_tensor_parallel_engines_have_a_bundle_for_each_rank_on_one_node(
    joined: Cluster, free_gpus: Callable[[], float]
) -> None:
    pool = await RayPools(Config(labeller={**SCRIPTED, "gpus": 1, "tensor_parallel": 4})).open("labeller", None, 6)
    try:
        groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
        assert len(groups) == 6
        for group in groups:
            assert [bundle["GPU"] for bundle in group["bundles"].values()] == [1.0] * 4
            assert len(set(group["bundles_to_node_id"].values())) == 1
        nodes = Counter(next(iter(group["bundles_to_node_id"].values())) for group in groups)
        assert set(nodes.values()) == {2}, "two engines of four on each node of eight"
        assert free_gpus() == 0
        seen = await seen_by(pool)
        assert all(one["ids"] == [] for one in seen), "the actor leaves the GPUs to the engine's workers"
        assert all(one["visible"] != "" for one in seen), "but it must see that there are some"
    finally:
        await pool.close()
    await until(lambda: free_gpus() == NODES * GPUS)


async def test_shares_land_on_one_card_and_start_one_after_another(joined: Cluster, tmp_path: Path) -> None:
    shares = {"generator": 0.3, "labeller": 0.3, "scorer": 0.1}
    script = {**SCRIPTED, "placement": {"host_1": 1}, "scripted": {"load_s": START_S}}
    config = Config.model_validate({role: {**script, "gpus": share} for role, share in shares.items()})
    job = policy_job(tmp_path, gpus=0.3, placement={"host_1": 1}, scripted={"load_s": START_S})
    pools = RayPools(config)
    async with AsyncExitStack() as opened:
        async with asyncio.TaskGroup() as starting:
            engines = [starting.create_task(pools.open(role, None)) for role in shares]  # type: ignore[arg-type]
            trainer = starting.create_task(RayTrainers(tmp_path).policy_learner(job))
        for one in (*engines, trainer):
            opened.push_async_callback(one.result().close)
        seen = [one for pool in engines for one in await seen_by(pool.result())]
        seen += await seen_by_ranks(trainer.result())
    assert len({(one["node"], one["visible"]) for one in seen}) == 1
    turns: list[StartTurn] = sorted((turn for one in seen for turn in one["turns"]), key=lambda turn: turn.began)
    assert {turn.who for turn in turns} == {*shares, "policy_trainer"}
    assert all(turn.ended - turn.began >= START_S for turn in turns)
    assert all(before.ended <= after.began for before, after in itertools.pairwise(turns)), turns


async def test_two_trainers_of_eight_ranks_have_a_node_each(joined: Cluster, tmp_path: Path) -> None:
    trainers = RayTrainers(tmp_path)
    job = policy_job(tmp_path, gpus=1, ranks=GPUS)
    learners = await asyncio.gather(trainers.policy_learner(job), trainers.policy_learner(job))
    try:
        seen = [await seen_by_ranks(learner) for learner in learners]
    finally:
        await asyncio.gather(*(learner.close() for learner in learners))
    nodes = [{rank["node"] for rank in ranks} for ranks in seen]
    assert [len(each) for each in nodes] == [1, 1] and nodes[0] != nodes[1]
    for ranks in seen:
        assert sorted(int(rank["local_rank"]) for rank in ranks) == list(range(GPUS))
        for rank in ranks:  # torch numbers what is visible
            visible = rank["visible"].split(",")
            assert len(visible) == GPUS
            assert [visible[int(rank["local_rank"])]] == rank["ids"]


async def test_what_a_removed_node_held_is_placed_elsewhere(joined: Cluster, free_gpus: Callable[[], float]) -> None:
    settings = {**SCRIPTED, "gpus": 1, "tensor_parallel": 4, "min": 2}
    pool = await RayPools(Config(labeller=settings)).open("labeller", None)
    try:
        lost = pool.roster.members[0].where.node_id
        (node,) = [node for node in joined.worker_nodes if node.node_id == lost]
        joined.remove_node(node, allow_graceful=False)
        await until(lambda: lost not in {m.where.node_id for m in pool.roster.members} and pool.stats().engines == 2)
        done = [one async for back in pool.run(Double(), rows(20)) for one in back]
        assert len(done) == 20 and not any(one.failure for one in done)
        assert pool.stats().restarts >= 1
        await until(lambda: free_gpus() == (NODES - 1) * GPUS - 2 * 4)
    finally:
        await pool.close()
        add_node(joined, NODES)
    await until(lambda: free_gpus() == NODES * GPUS)


async def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.2)
