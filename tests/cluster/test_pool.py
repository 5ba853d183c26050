"""The pool over real actors: every row exactly once, whichever engines die, hang, join or leave."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from actors.cluster.weights import SharedWeights
from actors.pool.pool import EnginePool, RayPools
from benchmarks.weights import used_bytes
from rlaif.config.schema import Config, PoolSettings
from rlaif.errors import EngineError, RunError, TrainerLostError, UserError
from rlaif.interfaces import Done, Failure, Probe, WeightBucket, Weights, WeightsHeader
from tests.cluster.tasks import Ask, Double, Row, SpoilSync, Unpicklable, Version, rows
from tests.tiny_models import saved, tiny_lm

pytestmark = pytest.mark.usefixtures("cluster")


@asynccontextmanager
async def pool_of(**settings: Any) -> AsyncIterator[EnginePool]:
    config = Config(generator={"engine": "scripted", "cpus": 0.5, "max": 4, "idle_timeout_s": 60, **settings})
    pool = await RayPools(config).open("generator", None)  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        await pool.close()


async def results(
    pool: EnginePool, task: Any, given: Iterable[Row], on_row: Callable[[int], None] = lambda count: None
) -> list[Done[Row, Any]]:
    done = []
    async for back in pool.run(task, given):
        for one in back:
            done.append(one)
            on_row(len(done))
    return done


def assert_once(done: list[Done[Row, Any]], given: list[Row]) -> None:
    assert Counter(one.row.id for one in done) == Counter(row.id for row in given)


async def test_every_row_comes_back_once_and_a_failing_row_with_its_cause() -> None:
    async with pool_of(min=2) as pool:
        done = await results(pool, Double(raises=frozenset({17})), rows(1000))
        assert_once(done, rows(1000))
        failures = [one for one in done if one.failure]
        assert [(one.row.number, one.record) for one in failures] == [(17, None)]
        assert failures[0].failure == Failure(cause="ValueError: row 17 cannot be doubled", fault="outside")
        assert all(one.record[0] == 2 * one.row.number for one in done if one.record)
        assert len({one.record[1] for one in done if one.record}) == 2, "both engines must work"
        stats = pool.stats()
        assert (stats.engines, stats.in_flight, stats.done, stats.failed, stats.restarts) == (2, 0, 999, 1, 0)


async def test_rows_are_read_only_as_far_as_engines_and_consumer_keep_up() -> None:
    read = 0

    def counted() -> Iterator[Row]:
        nonlocal read
        for row in rows(1000):
            read += 1
            yield row

    async with pool_of(min=1, max_in_flight=8, chunk_rows=4) as pool:
        stream = pool.run(Double(), counted())
        await anext(stream)
        await asyncio.sleep(1.0)  # time enough for the engine to do all of them
        assert read <= 24, "more than two engines' worth in flight, plus what was returned"
        await stream.aclose()
        assert_once(await results(pool, Double(), rows(20)), rows(20))


async def test_two_runs_share_the_engines_and_an_empty_one_ends() -> None:
    async with pool_of(min=1, max_in_flight=8, chunk_rows=4) as pool:
        first, second, third = await asyncio.gather(
            results(pool, Double(seconds=0.01), rows(60)),
            results(pool, Version(), rows(60)),
            results(pool, Double(), []),
        )
        assert_once(first, rows(60))
        assert_once(second, rows(60))
        assert third == []


async def test_a_source_of_rows_that_fails_ends_only_its_run() -> None:
    def failing() -> Iterator[Row]:
        yield from rows(5)
        raise OSError("row 5 cannot be read")

    async with pool_of(min=1) as pool:
        with pytest.raises(OSError, match="row 5 cannot be read"):
            await results(pool, Double(), failing())
        assert_once(await results(pool, Double(), rows(10)), rows(10))


async def test_a_killed_engine_loses_nothing() -> None:
    async with pool_of(min=2, max_in_flight=16, chunk_rows=4) as pool:
        victim = pool.roster.members[0].where.pid

        def kill_one(count: int) -> None:
            if count == 50:
                os.kill(victim, signal.SIGKILL)

        done = await results(pool, Double(seconds=0.02), rows(400), kill_one)
        assert_once(done, rows(400))
        assert not [one for one in done if one.failure]
        assert pool.stats().restarts == 1
        while pool.stats().engines < 2:
            await asyncio.sleep(0.1)
        assert victim not in {member.where.pid for member in pool.roster.members}


async def test_an_engine_that_dies_idle_is_replaced_before_it_is_needed() -> None:
    async with pool_of(min=1) as pool:
        victim = pool.roster.members[0].where.pid
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(60):
            while victim in {member.where.pid for member in pool.roster.members} or not pool.roster.members:
                await asyncio.sleep(0.1)
        assert pool.stats().restarts == 1


async def test_a_row_that_kills_its_engine_is_given_back_and_the_innocent_survive() -> None:
    async with pool_of(min=2, max_in_flight=16, chunk_rows=8) as pool:
        done = await results(pool, Double(kills=frozenset({30}), seconds=0.01), rows(120))
        assert_once(done, rows(120))
        failures = {one.row.number: one.failure.cause for one in done if one.failure}
        assert set(failures) == {30}
        assert "killed its engine" in failures[30] and "exit" in failures[30].lower()
        assert pool.stats().restarts <= 3


async def test_a_row_that_is_the_only_one_is_given_a_second_engine_before_it_is_condemned() -> None:
    async with pool_of(min=1) as pool:
        done = await results(pool, Double(kills=frozenset({0})), rows(1))
        assert done[0].failure and done[0].failure.cause.startswith("killed its engine twice: ")
        assert pool.stats().restarts == 2


async def test_a_dead_engine_in_a_living_actor_is_replaced(tmp_path: Path) -> None:
    async with pool_of(min=1) as pool:
        done = await results(pool, Double(breaks_engine_unless=str(tmp_path / "broken")), rows(30))
        assert_once(done, rows(30))
        assert not [one for one in done if one.failure]
        assert pool.stats().restarts == 1


async def test_a_task_that_kills_every_engine_ends_in_an_error_with_its_cause() -> None:
    async with pool_of(min=1, max_in_flight=8) as pool:
        with pytest.raises(EngineError, match=r"7 generator engines in a row died without one good row; .*exit"):
            await results(pool, Double(kills=frozenset(range(100))), rows(100))


async def test_a_record_that_cannot_travel_ends_its_run_and_no_engine() -> None:
    async with pool_of(min=1) as pool:
        with pytest.raises(RunError, match=r"cannot exchange rows with this process: .*pickle"):
            await results(pool, Unpicklable(), rows(3))
        assert_once(await results(pool, Double(), rows(3)), rows(3))
        assert pool.stats().restarts == 0


async def test_a_hung_engine_is_killed_and_its_row_given_back() -> None:
    async with pool_of(min=2, max_in_flight=8, chunk_rows=4, idle_timeout_s=2) as pool:
        done = await results(pool, Double(blocks=frozenset({11}), seconds=0.01), rows(60))
        assert_once(done, rows(60))
        failures = {one.row.number: one.failure.cause for one in done if one.failure}
        assert set(failures) == {11}
        assert "hung: held 1 rows and returned none for" in failures[11]


async def test_the_pool_grows_and_shrinks_while_it_runs_within_its_bounds() -> None:
    given: list[Row] = []
    enough = False

    def until_enough() -> Iterator[Row]:
        while not enough:
            given.append(Row(id=f"rows:{len(given)}", number=len(given)))
            yield given[-1]

    async with pool_of(min=1, max=3, max_in_flight=8, chunk_rows=4) as pool:
        running = asyncio.create_task(results(pool, Double(seconds=0.05), until_enough()))
        await pool.resize(3)
        assert pool.stats().engines == 3
        await asyncio.sleep(0.5)
        assert all(member.holds for member in pool.roster.members), "newcomers work"
        await pool.resize(1)
        assert pool.stats().engines == 1
        enough = True
        done = await running
        assert_once(done, given)
        assert not [one for one in done if one.failure]
        assert len({one.record[1] for one in done}) == 3
        with pytest.raises(UserError, match=r"generator: 4 engines asked for; generator\.min=1 and max=3"):
            await pool.resize(4)


async def test_a_pool_grows_while_rows_wait_and_shrinks_when_they_do_not() -> None:
    quick = {"enabled": True, "up_after_s": 0.2, "down_after_s": 0.5}
    script = {"latency_s": 0.02, "concurrency": 1}
    async with pool_of(min=1, max=3, max_in_flight=8, chunk_rows=4, scripted=script, autoscale=quick) as pool:
        sizes = set()

        async def label(given: list[Row]) -> None:
            done = []
            async for back in pool.run(Ask(), given):
                done += back
                sizes.add(pool.stats().engines)
            assert_once(done, given)
            assert not [one for one in done if one.failure]

        await label(rows(1500))
        assert sizes == {1, 2, 3}
        while pool.stats().engines > 1:  # it has nothing to do
            await asyncio.sleep(0.1)
        await label(rows(20))
        assert pool.stats().restarts == 0


def weights(version: int, size: int = 2) -> Weights:
    """In two buckets of ``size`` x ``size`` numbers."""
    tensors = {name: np.zeros((size, size), np.float32) for name in ("embedding", "head")}
    return Weights(
        header=WeightsHeader(
            version=version,
            shapes={name: tensor.shape for name, tensor in tensors.items()},
            num_buckets=2,
            probe=Probe(token_ids=((1, 2),), values=((0.0,),)),
        ),
        buckets=[WeightBucket(tensors={name: tensor}, checksums={name: 0}) for name, tensor in tensors.items()],
    )


async def test_newcomers_and_replacements_serve_the_latest_weights() -> None:
    async with pool_of(min=1, max=2, max_in_flight=8, chunk_rows=2) as pool:
        await pool.update_weights(weights(1))
        await pool.update_weights(weights(2))
        os.kill(pool.roster.members[0].where.pid, signal.SIGKILL)
        done = await results(pool, Version(), rows(4))  # only a replacement can answer
        assert {one.record for one in done} == {2}
        await pool.resize(2)
        done = await results(pool, Version(seconds=0.05), rows(40))
        assert {one.record for one in done} == {2}
        assert all(member.where for member in pool.roster.members)


def large_weights(version: int) -> Weights:
    """32 buckets of 1 MiB."""
    small = weights(version, size=512)
    tensors = {f"layer {number}": np.full((512, 512), version, np.float32) for number in range(32)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return Weights(
        header=replace(small.header, shapes=shapes, num_buckets=len(tensors)),
        buckets=[WeightBucket(tensors={name: tensor}, checksums={name: 0}) for name, tensor in tensors.items()],
    )


async def test_engines_that_die_and_join_while_weights_are_on_their_way_serve_the_right_version() -> None:
    async with pool_of(min=2, max=3, max_in_flight=8, chunk_rows=2) as pool:
        await pool.update_weights(large_weights(1))
        victim = pool.roster.members[0].where.pid
        updating = asyncio.create_task(pool.update_weights(large_weights(2)))
        await asyncio.sleep(0.02)
        joining = asyncio.create_task(pool.resize(3))
        assert not updating.done()
        os.kill(victim, signal.SIGKILL)
        await asyncio.gather(updating, joining)
        async with asyncio.timeout(60):
            while pool.stats().engines < 3:
                await asyncio.sleep(0.1)
        done = await results(pool, Version(seconds=0.05), rows(60))
        assert {one.record for one in done} == {2}
        assert pool.stats().restarts == 1


async def test_the_object_store_frees_a_version_when_the_next_one_is_served() -> None:
    async with pool_of(min=2, max=2) as pool:
        used = []
        for version in range(1, 6):
            await pool.update_weights(large_weights(version))
            used.append(await asyncio.to_thread(used_bytes))
        assert max(used[1:]) < used[0] + 2**24  # half a version


@pytest.mark.parametrize("hangs", [False, True])
async def test_an_engine_that_fails_or_hangs_at_new_weights_is_replaced(hangs: bool) -> None:
    async with pool_of(min=2, max=2, idle_timeout_s=3, max_in_flight=8, chunk_rows=2) as pool:
        await pool.update_weights(weights(1))
        await results(pool, SpoilSync(hangs=hangs), rows(1))
        await pool.update_weights(weights(2))
        async with asyncio.timeout(60):
            while pool.stats().engines < 2:
                await asyncio.sleep(0.1)
        assert pool.stats().restarts == 1
        done = await results(pool, Version(seconds=0.05), rows(40))
        assert {one.record for one in done} == {2}


async def test_weights_and_a_smaller_pool_do_not_get_into_each_others_way() -> None:
    async with pool_of(min=1, max=3) as pool:
        await pool.resize(3)
        await asyncio.gather(pool.update_weights(weights(1)), pool.resize(1))
        assert {one.record for one in await results(pool, Version(), rows(4))} == {1}
        assert pool.stats().restarts == 0


async def test_a_dead_engine_is_replaced_as_soon_as_one_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("actors.pool.roster.REPLACE_PAUSE_MOST_S", 0.1)
    monkeypatch.setattr("actors.pool.roster.START_ATTEMPTS", 1)
    model, away = Path(saved(tiny_lm(0, tied=True), tmp_path / "model")), tmp_path / "away"
    config = Config(generator={"engine": "scripted", "cpus": 0.5, "min": 2, "max": 2})
    pool = await RayPools(config).open("generator", str(model))
    try:
        model.rename(away)
        os.kill(pool.roster.members[0].where.pid, signal.SIGKILL)
        async with asyncio.timeout(120):
            while caplog.text.count("a replacement could not start") < 2:
                await asyncio.sleep(0.1)
            away.rename(model)
            while pool.stats().engines < 2:
                await asyncio.sleep(0.1)
        assert_once(await results(pool, Double(), rows(20)), rows(20))
    finally:
        await pool.close()


class Owner:
    """Owns what it puts into the object store, which is lost when it dies."""

    def put(self, value: Any) -> list[ray.ObjectRef]:
        return [ray.put(value)]


async def test_weights_that_are_lost_mean_that_their_trainer_is() -> None:
    async with pool_of(min=1) as pool:
        owner = ray.remote(Owner).remote()
        large = weights(1, size=512)  # else it is copied
        [ref] = await owner.put.remote(large.buckets[1])
        ray.kill(owner)
        await asyncio.sleep(3)  # for Ray to notice
        with pytest.raises(TrainerLostError, match="weights 1 are lost"):
            await pool.update_weights(SharedWeights(header=large.header, buckets=[ray.put(large.buckets[0]), ref]))


async def test_a_bad_model_is_one_clear_error(tmp_path: Any) -> None:
    config = Config(generator={"engine": "scripted", "min": 2, "max": 2, "cpus": 0.5})
    with pytest.raises(EngineError, match=r"generator-\d on .*, pid \d+ could not open .*no-model: ModelError: "):
        await RayPools(config).open("generator", str(tmp_path / "no-model"))


async def test_what_cannot_be_scheduled_is_named_with_its_needs() -> None:
    settings = PoolSettings(engine="scripted", cpus=500, start_timeout_s=2)
    pool = EnginePool("labeller", None, settings)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"waited 2 s for labeller-0 to be scheduled \(it needs .*500"):
        await pool.start()
    await pool.close()


async def test_closing_ends_runs_and_processes() -> None:
    async with pool_of(min=1) as pool:
        pid = pool.roster.members[0].where.pid
        running = asyncio.create_task(results(pool, Double(seconds=30), rows(3)))
        await asyncio.sleep(0.3)
    with pytest.raises(EngineError, match="the generator pool was closed"):
        await running
    for _ in range(50):
        if not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"engine process {pid} lives on")
