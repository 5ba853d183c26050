"""A pool at work in a simulated cluster: consumers, orders for other sizes, new weights, and its close at any time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from actors.cluster.waiting import look_at
from actors.cluster.weights import SharedWeights
from actors.cluster.whereabouts import Whereabouts
from actors.pool import roster
from actors.pool.engine_actor import EngineActor
from actors.pool.pool import EnginePool, RayPools
from rlaif.config.schema import Autoscale, Config, PoolSettings
from rlaif.errors import EngineError, RequestError, RlaifError, RunError, TrainerLostError
from rlaif.interfaces import Done, Probe, WeightsHeader
from tests.unit.actors.simulation.cluster import Call, Cluster, SimulatedActor
from tests.unit.actors.simulation.loop import SimulatedLoop, Stuck


def header_of(version: int, num_buckets: int) -> WeightsHeader:
    probe = Probe(token_ids=(), values=())
    return WeightsHeader(version=version, shapes={}, num_buckets=num_buckets, probe=probe)


@dataclass(frozen=True)
class Row:
    number: int
    kind: str = "good"  #: or "bad" (raises), "poison" (kills its engine), "block" (hangs it)

    @property
    def id(self) -> str:
        return f"rows:{self.number}"


class SimulatedEngine:
    def __init__(self, actor: SimulatedActor) -> None:
        self.actor = actor
        self.version = 0

    async def begin_weights(self, header: WeightsHeader) -> None:
        await self.actor.wait()
        self.coming, self.loaded = header, []

    async def load_weights(self, bucket: Any) -> None:
        await self.actor.wait()
        self.loaded.append(bucket)

    async def serve_weights(self) -> None:
        """Raises AssertionError, which fails the pool, for weights of which not all have come, or of two versions."""
        await self.actor.wait()
        version = self.coming.version
        assert sorted(self.loaded) == [(version, number) for number in range(self.coming.num_buckets)]
        self.version = version

    def prefix_hits(self) -> tuple[int, int]:
        return 1, 2

    async def close(self) -> None:
        await self.actor.wait(self.actor.cluster.lag(8))


class SimulatedEngineActor(EngineActor):
    simulated: SimulatedActor

    async def whereabouts(self) -> Whereabouts:
        return self.simulated.where()

    async def moved_bytes(self) -> int:
        return 0  # it opens at once, or hangs

    async def open(self, role: str, model: str, settings: PoolSettings) -> None:
        await self.simulated.wait()
        if self.simulated.cluster.refusing():
            raise EngineError("out of memory")
        self._opened = SimulatedEngine(self.simulated)  # type: ignore[assignment]


@dataclass(frozen=True)
class Work:
    seconds: float

    async def __call__(self, engine: SimulatedEngine, row: Row) -> tuple[int, int]:
        actor = engine.actor
        await actor.wait(actor.cluster.loop.choices.random() * self.seconds)
        if row.kind == "poison" or actor.cluster.deadly:
            actor.die()
            await asyncio.Event().wait()
        if row.kind == "block":
            actor.hang()
            await asyncio.Event().wait()
        if row.kind == "bad":
            raise RequestError("too long")
        if row.kind == "odd":
            raise ValueError("no letter")
        return row.number, engine.version


class PoolCluster(Cluster):
    """``deaths``: how many processes died with each row in them, nodes' losses left out. ``refused_until``: no engine
    can be opened before. ``deadly``: engines die of every row."""

    def __init__(self, loop: SimulatedLoop, **faults: Any) -> None:
        super().__init__(loop, **faults)
        self.kinds = {EngineActor: SimulatedEngineActor}
        self.deaths: Counter[Row] = Counter()
        self.refused_until = 0.0
        self.deadly = False
        self.failed_starts = 0
        self.on_end = self._count
        self.on_lost = self._suspect

    def refusing(self) -> bool:
        return self.loop.time() < self.refused_until

    def _count(self, actor: SimulatedActor) -> None:
        self.failed_starts += not any(call.method == "stay" for call in actor.sent)

    def _suspect(self, call: Call) -> None:
        if call.method == "run" and not call.actor.lost_with_node:
            back = {place for place, _, _ in call.given}
            self.deaths.update(row for place, row in enumerate(call.args[1]) if place not in back)


@dataclass
class PoolStory:
    """What the seed makes of a pool. ``problems``: the invariants that did not hold."""

    loop: SimulatedLoop
    cluster: PoolCluster
    settings: PoolSettings
    closes_early: bool

    def __post_init__(self) -> None:
        self.problems: list[str] = []
        self.closed = False
        self.sizes = range(self.settings.min, self.settings.max + 1)
        self.version = 0
        self.num_good = 0

    @property
    def choices(self) -> Any:
        return self.loop.choices

    def say(self, problem: str) -> None:
        self.problems.append(problem)

    async def live(self, calls: list[list[Row]]) -> None:
        pools = RayPools(Config(generator=self.settings.model_dump()))
        try:
            pool = await pools.open("generator", "model")
        except RunError as error:
            if not self.cluster.failed_starts and not self.cluster.happened:
                self.say(f"did not open: {error}")
        else:
            await self._work(pool, calls)
        self.problems += await self.cluster.at_rest()

    async def _work(self, pool: EnginePool, calls: list[list[Row]]) -> None:
        consumers = [asyncio.create_task(self._consume(pool, rows)) for rows in calls]
        others = [asyncio.create_task(self._resize(pool)), asyncio.create_task(self._sync(pool))]
        if self.closes_early:
            await asyncio.sleep(self.choices.random() * 60)
        else:
            await asyncio.wait(consumers)
            self.cluster.rate = 0.0
            await self._heal(pool)
        self.closed = True
        for number in range(len(others)):
            if self.choices.random() < 0.3:
                others[number].cancel()
        await pool.close()
        await asyncio.wait([*consumers, *others], timeout=900)
        for task in [*consumers, *others]:
            if task.done() and not task.cancelled() and task.exception():
                self.say(f"{task.exception()!r}")

    async def _consume(self, pool: EnginePool, rows: list[Row]) -> None:
        leaves_after = self.choices.choice([None, None, None, len(rows) // 2])
        pause = self.choices.choice([0.0, 0.0, 2.0])
        done: list[Done[Row, Any]] = []
        source: Iterator[Row] | list[Row] = rows if self.choices.random() < 0.5 else (row for row in rows)
        stream = pool.run(Work(seconds=self.choices.choice([0.0, 1.0])), source)
        try:
            async for back in stream:
                done += back
                self.num_good += sum(one.failure is None for one in back)
                pool.stats()
                await asyncio.sleep(pause)
                if leaves_after is not None and len(done) >= leaves_after:
                    await stream.aclose()
                    break
        except RunError as error:
            if not self.closed and not self._may_fail(error):
                self.say(f"the run failed: {error}")
        else:
            if leaves_after is None:
                self._check(rows, done)
        twice = [row for row, count in Counter(one.row for one in done).items() if count > 1]
        if twice:
            self.say(f"rows come back more than once: {twice}")
        self._check_outcomes(done)

    def _check(self, rows: list[Row], done: list[Done[Row, Any]]) -> None:
        if lost := set(rows) - {one.row for one in done}:
            self.say(f"rows do not come back: {lost}")

    def _check_outcomes(self, done: list[Done[Row, Any]]) -> None:
        for one in done:
            row, cause = one.row, one.failure.cause if one.failure else ""
            if "killed its engine" in cause:
                if self.cluster.deaths[row] < 2:
                    self.say(f"{row} is condemned, and {self.cluster.deaths[row]} engines died with it")
            elif (row.kind == "good") != (one.failure is None) or (one.record and one.record[0] != row.number):
                self.say(f"{row} came back as {one}")

    def _may_fail(self, error: RunError) -> bool:
        """A pool without an engine gives up after some attempts to start one, and after many deaths when there is no
        good row that an engine might do again; weights may be lost."""
        gives_up = self.cluster.failed_starts >= roster.START_ATTEMPTS or not self.num_good
        return isinstance(error, TrainerLostError) or gives_up

    async def _resize(self, pool: EnginePool) -> None:
        for _ in range(self.choices.choice([0, 0, 1, 3])):
            await asyncio.sleep(self.choices.random() * 20)
            orders = [
                asyncio.create_task(pool.resize(self.choices.choice(self.sizes)))
                for _ in range(self.choices.choice([1, 2]))
            ]
            for order in orders:
                order.add_done_callback(look_at)
            if self.choices.random() < 0.2:
                await asyncio.sleep(self.choices.random() * 5)
                orders[0].cancel()
            for outcome in await asyncio.gather(*orders, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, RlaifError | asyncio.CancelledError):
                    self.say(f"resize raised {outcome!r}")
                if outcome is None and pool.roster.closed and not self.closed:
                    self.say("a closed pool was resized")

    async def _sync(self, pool: EnginePool) -> None:
        for _ in range(self.choices.choice([0, 1, 3])):
            await asyncio.sleep(self.choices.random() * 20)
            self.version += 1
            buckets = [self.cluster.put((self.version, number)) for number in range(self.choices.choice([1, 4]))]
            weights = SharedWeights(header=header_of(self.version, len(buckets)), buckets=buckets)
            await pool.update_weights(weights)
            await pool.prefix_hits()

    async def _heal(self, pool: EnginePool) -> None:
        """As many engines as there are to be serve in the end, even if one dies with nothing to do."""
        if pool.roster.members and self.choices.random() < 0.3:
            self.choices.choice(pool.roster.members).engine._handle._actor.die()
        for _ in range(400):
            await asyncio.sleep(5)
            alive = [member for member in pool.roster.members if member.engine._handle._actor.alive]
            if pool._failure or (len(alive) == pool.stats().engines == pool.roster._size and not pool.roster.resizing):
                break
        else:
            self.say(f"{len(alive)} engines serve, not {pool.roster._size}")
        if pool._failure and not self._may_fail(pool._failure):
            self.say(f"the pool failed: {pool._failure}")


def pool_story(seed: int) -> list[str]:
    """The problems of one schedule."""
    loop = SimulatedLoop(seed)
    choices = loop.choices
    faults = {"rate": choices.choice([0.0, 0.005, 0.03]), "budget": choices.choice([1, 3, 6])}
    cluster = PoolCluster(loop, **faults)
    cluster.faults = tuple(choices.sample(cluster.faults, choices.choice([1, 2, 6])))
    if choices.random() < 0.1:
        cluster.refused_until = choices.random() * 300
    low = choices.choice([1, 1, 2])
    settings = PoolSettings(
        engine="scripted",
        min=low,
        max=low + choices.choice([0, 2]),
        max_in_flight=choices.choice([2, 8, 24]),
        chunk_rows=choices.choice([1, 4]),
        tensor_parallel=choices.choice([1, 2]),
        idle_timeout_s=30,
        start_timeout_s=40,
        autoscale=Autoscale(enabled=choices.random() < 0.2, up_after_s=2, down_after_s=3),
    )
    kinds = ["good"] * choices.choice([5, 20, 200]) + ["bad", "odd", "poison", "block"]
    calls = []
    for call in range(choices.choice([1, 1, 2])):
        rows = range(call * 1000, call * 1000 + choices.choice([1, 12, 30]))
        calls.append([Row(number, choices.choice(kinds)) for number in rows])
    story = PoolStory(loop, cluster, settings, closes_early=choices.random() < 0.3)
    return run_story(loop, cluster, story.problems, story.live(calls))


def run_story(loop: SimulatedLoop, cluster: Cluster, problems: list[str], living: Any) -> list[str]:
    """Run to the end; ``problems`` and what the loop noticed."""
    with cluster.in_place_of_ray():
        try:
            loop.run(living)
        except Stuck as error:
            problems.append(f"waits for ever: {error}")
        lost = [f"exception lost: {what}" for what in loop.lost_exceptions()]
        errors = [f"unhandled: {error}" for error in loop.errors]
        loop.forget()  # what is left may still kill its engine
    return [*problems, *lost, *errors]


def outage_story(seed: int) -> list[str]:
    """The problems of a pool of two engines that gets no second one for a day, while the first one serves."""
    loop = SimulatedLoop(seed)
    cluster = PoolCluster(loop)
    settings = PoolSettings(engine="scripted", min=2, max=2)
    story = PoolStory(loop, cluster, settings, closes_early=False)

    async def live() -> None:
        pool = await RayPools(Config(generator=settings.model_dump())).open("generator", "model")
        cluster.refused_until = loop.time() + 86_400
        cluster.actors[0].die()
        await asyncio.sleep(86_400 + 600)
        if pool._failure or pool.stats().engines != 2:
            story.say(f"{pool.stats().engines} engines serve after a day: {pool._failure}")
        else:
            await story._consume(pool, [Row(number) for number in range(30)])
        await pool.close()
        story.problems += await cluster.at_rest()

    return run_story(loop, cluster, story.problems, live())


def poison_story(seed: int) -> list[str]:
    """The problems of one engine that gets many poison rows in a row among good ones."""
    loop = SimulatedLoop(seed)
    choices = loop.choices
    cluster = PoolCluster(loop)
    settings = PoolSettings(
        engine="scripted", min=1, max=1, max_in_flight=choices.choice([2, 8, 32]), chunk_rows=choices.choice([1, 4, 16])
    )
    story = PoolStory(loop, cluster, settings, closes_early=False)
    first, count = settings.max_in_flight, choices.choice([7, 20, 60])
    rows = [Row(n, "poison" if first <= n < first + count else "good") for n in range(first + count + 20)]

    async def live() -> None:
        pool = await RayPools(Config(generator=settings.model_dump())).open("generator", "model")
        done: list[Done[Row, Any]] = []
        try:
            async for back in pool.run(Work(seconds=0.0), rows):
                done += back
        except EngineError as error:
            story.say(str(error))
        story._check(rows, done)
        story._check_outcomes(done)
        condemned = {one.row for one in done if one.failure}
        if condemned != {row for row in rows if row.kind == "poison"} or pool.stats().done != len(rows) - count:
            story.say(f"condemned: {len(condemned)} of {count}, done: {pool.stats().done}")
        await pool.close()
        story.problems += await cluster.at_rest()

    return run_story(loop, cluster, story.problems, live())


def hopeless_story(seed: int) -> list[str]:
    """The problems of a pool whose engines begin to die of every row, poison or not, after some were good."""
    loop = SimulatedLoop(seed)
    cluster = PoolCluster(loop)
    settings = PoolSettings(engine="scripted", min=1, max=1, max_in_flight=32)
    story = PoolStory(loop, cluster, settings, closes_early=False)
    rows = [Row(number) for number in range(1000)]

    async def live() -> None:
        pool = await RayPools(Config(generator=settings.model_dump())).open("generator", "model")
        try:
            async for _ in pool.run(Work(seconds=0.0), rows):
                cluster.deadly = pool.stats().done > 100
            story.say("a run of nothing but deaths ends well")
        except EngineError as error:
            if "engines in a row died without one good row" not in str(error):
                story.say(str(error))
        if len(cluster.actors) > 50:  # here they start at once, while it is found out whether nodes were lost
            story.say(f"{len(cluster.actors)} engines were started in vain")
        await pool.close()
        story.problems += await cluster.at_rest()

    return run_story(loop, cluster, story.problems, live())
