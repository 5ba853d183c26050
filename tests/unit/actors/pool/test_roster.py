"""Who is hired, retired and replaced, over engines without actors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from actors.cluster.weights import SharedWeights
from actors.pool import roster as module
from actors.pool.background import BackgroundTasks
from actors.pool.member import Member, MemberState
from actors.pool.roster import Roster
from rlaif.config.schema import PoolSettings
from rlaif.errors import EngineError, UserError
from rlaif.interfaces import Probe, WeightsHeader
from tests.unit.actors.pool.engines import FakeEngine


class Cluster:
    """Starts engines, or does not: ``starts`` is called with the name of each."""

    def __init__(self) -> None:
        self.started: list[FakeEngine] = []
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.starts: Callable[[str], None] = lambda name: None

    async def start_engine(self, name: str, role: str, model: str, settings: PoolSettings) -> FakeEngine:
        await self.may_start.wait()
        self.starts(name)
        engine = FakeEngine(name)
        self.started.append(engine)
        return engine


class Pool:
    """A roster, who it welcomed, and what failed."""

    def __init__(self, **settings: int) -> None:
        self.welcomed: list[str] = []
        self.errors: list[BaseException] = []
        self.roster = Roster(
            "generator",
            "model",
            PoolSettings(engine="scripted", **settings),
            numbers=None,
            tasks=BackgroundTasks(self.errors.append),
            welcome=lambda member: self.welcomed.append(member.name),
        )

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.roster.members]

    def bury(self, member: Member) -> None:
        member.die("exit 7")
        assert self.roster.remove(member)
        self.roster.refill()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(module, "start_engine", cluster.start_engine)
    monkeypatch.setattr(module, "REPLACE_PAUSE_MOST_S", 0.01)
    return cluster


def weights(version: int) -> SharedWeights:
    probe = Probe(token_ids=(), values=())
    header = WeightsHeader(version=version, shapes={}, num_buckets=0, probe=probe)
    return SharedWeights(header=header, buckets=[])


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def refuse(name: str) -> None:
    raise EngineError(f"{name} could not open model")


async def test_newcomers_are_welcomed_and_leavers_finish_their_rows(cluster: Cluster) -> None:
    pool = Pool(min=1, max=3)
    await pool.roster.hire(1)
    await pool.roster.resize(3)
    assert pool.welcomed == pool.names == ["generator-0", "generator-1", "generator-2"]
    pool.roster.members[0].load(4)
    pool.roster.members[1].load(2)
    shrinking = asyncio.create_task(pool.roster.resize(1))
    await until(lambda: len(pool.names) == 2)
    assert pool.roster.resizing and cluster.started[2].closed, "the one that holds nothing leaves first"
    assert [member.state for member in pool.roster.members] == [MemberState.SERVING, MemberState.DRAINING]
    pool.roster.members[1].unload(2)
    await shrinking
    assert pool.names == ["generator-0"] and cluster.started[1].closed
    assert pool.roster.restarts == 0 and not pool.errors


async def test_sizes_outside_the_bounds_are_refused(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    for size in (0, 3):
        with pytest.raises(UserError, match=rf"generator: {size} engines asked for; generator\.min=1 and max=2"):
            await pool.roster.resize(size)


async def test_a_newcomer_that_cannot_start_leaves_those_that_serve(cluster: Cluster) -> None:
    pool = Pool(min=1, max=3)
    await pool.roster.hire(1)
    cluster.starts = refuse
    with pytest.raises(EngineError, match="generator-1 could not open model"):
        await pool.roster.resize(2)
    assert pool.names == ["generator-0"] and pool.roster.starting == 0
    pool.bury(pool.roster.members[0])
    cluster.starts = lambda name: None
    await until(lambda: len(pool.names) == 1)
    await settle()
    assert len(pool.names) == 1, "the size is what it was before"


async def test_the_dead_are_replaced_and_draining_ones_are_not(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    await pool.roster.hire(1)
    await pool.roster.resize(2)
    pool.bury(pool.roster.members[0])
    await until(lambda: len(pool.names) == 2)
    assert pool.names == ["generator-1", "generator-2"] and pool.roster.restarts == 1
    leaver = pool.roster.members[0]
    leaver.load(1)
    pool.roster.members[1].load(2)
    shrinking = asyncio.create_task(pool.roster.resize(1))
    await settle()
    assert leaver.state is MemberState.DRAINING
    pool.bury(leaver)
    await shrinking
    await settle()
    assert pool.names == ["generator-2"] and pool.roster.restarts == 1


async def test_a_death_is_reported_once(cluster: Cluster) -> None:
    pool = Pool(min=1)
    await pool.roster.hire(1)
    (member,) = pool.roster.members
    assert pool.roster.remove(member)
    assert not pool.roster.remove(member)


async def test_a_replacement_is_tried_again_while_others_serve(cluster: Cluster) -> None:
    pool = Pool(min=2, max=2)
    await pool.roster.hire(2)
    attempts: list[str] = []

    def refuse_for_long(name: str) -> None:
        attempts.append(name)
        if len(attempts) <= 2 * module.START_ATTEMPTS:
            refuse(name)

    cluster.starts = refuse_for_long
    pool.bury(pool.roster.members[0])
    await until(lambda: len(pool.names) == 2)
    assert len(attempts) == 2 * module.START_ATTEMPTS + 1 and not pool.errors
    assert pool.roster.restarts == 1


async def test_a_pool_without_engines_fails_after_some_attempts(cluster: Cluster) -> None:
    pool = Pool(min=1)
    await pool.roster.hire(1)
    cluster.starts = refuse
    pool.bury(pool.roster.members[0])
    await until(lambda: bool(pool.errors))
    assert [str(error) for error in pool.errors] == [f"generator-{module.START_ATTEMPTS} could not open model"]


async def test_an_engine_that_dies_while_the_pool_grows_is_replaced(cluster: Cluster) -> None:
    pool = Pool(min=1, max=3)
    await pool.roster.hire(1)
    cluster.may_start.clear()
    growing = asyncio.create_task(pool.roster.resize(3))
    await settle()
    pool.bury(pool.roster.members[0])
    cluster.may_start.set()
    await growing
    await until(lambda: len(pool.names) == 3)
    await settle()
    assert pool.names == ["generator-1", "generator-2", "generator-3"] and pool.roster.restarts == 1


async def test_the_last_engine_that_dies_while_the_pool_fails_to_grow_is_replaced(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    await pool.roster.hire(1)
    cluster.may_start.clear()
    growing = asyncio.create_task(pool.roster.resize(2))
    await settle()
    pool.bury(pool.roster.members[0])
    cluster.starts = lambda name: refuse(name) if name == "generator-1" else None
    cluster.may_start.set()
    with pytest.raises(EngineError, match="generator-1 could not open model"):
        await growing
    await until(lambda: pool.names == ["generator-2"])
    assert pool.roster.restarts == 1


async def test_replacements_under_way_are_not_doubled(cluster: Cluster) -> None:
    pool = Pool(min=2, max=3)
    await pool.roster.hire(2)
    cluster.may_start.clear()
    for member in pool.roster.members:
        pool.bury(member)
    growing = asyncio.create_task(pool.roster.resize(3))
    await settle()
    assert pool.roster.starting == 3
    cluster.may_start.set()
    await growing
    await until(lambda: len(pool.names) == 3)
    await settle()
    assert len(cluster.started) == 5 and pool.roster.restarts == 2


async def test_newcomers_catch_up_and_take_turns_with_updates(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    await pool.roster.hire(1)
    await pool.roster.update_weights(weights(1))
    (first,) = cluster.started
    first.may_sync.clear()
    updating = asyncio.create_task(pool.roster.update_weights(weights(2)))
    growing = asyncio.create_task(pool.roster.resize(2))
    await settle()
    assert pool.names == ["generator-0"] and pool.roster.starting == 1, "a newcomer waits for the update"
    first.may_sync.set()
    outcomes = await updating
    await growing
    assert [(member.name, error) for member, error in outcomes] == [("generator-0", None)]
    assert [engine.weights for engine in cluster.started] == [[1, 2], [2]]


async def test_what_one_engine_raises_at_new_weights_is_returned_with_it(cluster: Cluster) -> None:
    pool = Pool(min=2, max=2)
    await pool.roster.hire(2)
    cluster.started[1].refusal = EngineError("the engine's thread died")
    outcomes = await pool.roster.update_weights(weights(1))
    assert {member.name: str(error) for member, error in outcomes} == {
        "generator-0": "None",
        "generator-1": "the engine's thread died",
    }


async def test_a_closed_roster_ends_hires_and_engines(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    await pool.roster.hire(1)
    cluster.may_start.clear()
    growing = asyncio.create_task(pool.roster.resize(2))
    await settle()
    pool.roster.stop_hiring()
    await pool.roster.close()
    with pytest.raises(EngineError, match="the generator pool was closed while engines started"):
        await growing
    assert pool.roster.closed and pool.names == [] and cluster.started[0].closed


async def test_an_order_that_waited_for_another_hires_nobody_once_the_pool_is_closed(cluster: Cluster) -> None:
    pool = Pool(min=1, max=3)
    await pool.roster.hire(1)
    cluster.may_start.clear()
    first, second = (asyncio.create_task(pool.roster.resize(size)) for size in (2, 3))
    await settle()
    pool.roster.stop_hiring()
    await pool.roster.close()
    cluster.may_start.set()
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(error) for error in outcomes] == [
        "the generator pool was closed while engines started",
        "the generator pool was closed",
    ]
    assert len(cluster.started) == 1 and pool.names == []


async def test_leavers_leave_even_if_nobody_waits_for_them_any_longer(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    await pool.roster.hire(1)
    await pool.roster.resize(2)
    for member in pool.roster.members:
        member.load(1)
    shrinking = asyncio.create_task(pool.roster.resize(1))
    await settle()
    shrinking.cancel()
    await settle()
    (leaver,) = (member for member in pool.roster.members if member.state is MemberState.DRAINING)
    leaver.unload(1)
    await until(lambda: len(pool.names) == 1)
    await until(lambda: any(engine.closed for engine in cluster.started))
    assert pool.roster.starting == 0 and not pool.errors


async def test_a_newcomer_that_is_abandoned_while_it_waits_for_a_sync_is_killed(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    await pool.roster.hire(1)
    cluster.started[0].may_sync.clear()
    updating = asyncio.create_task(pool.roster.update_weights(weights(1)))
    await settle()
    growing = asyncio.create_task(pool.roster.resize(2))
    await settle()
    assert len(cluster.started) == 2
    pool.roster.stop_hiring()
    with pytest.raises(EngineError, match="closed while engines started"):
        await growing
    assert cluster.started[1].killed
    updating.cancel()


async def test_a_leaver_that_dies_does_not_take_the_place_of_one_that_stays(cluster: Cluster) -> None:
    pool = Pool(min=1, max=2)
    await pool.roster.hire(1)
    await pool.roster.resize(2)
    first, second = pool.roster.members
    first.load(1)
    second.load(2)
    abandoned = asyncio.create_task(pool.roster.resize(1))
    await settle()
    abandoned.cancel()
    first.die("hung")  # while it drained; it is not buried yet
    second.unload(2)
    shrinking = asyncio.create_task(pool.roster.resize(1))
    await settle()
    first.unload(1)
    await shrinking
    await until(lambda: pool.names == ["generator-2"])
    assert not pool.errors
