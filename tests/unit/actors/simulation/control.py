"""Orders of other commands to a driver whose pools and trainers may raise anything, over a board that fails."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RaySystemError

from actors.control import ControlReply, PoolOrder, serve_orders
from actors.pool.pool import RayPools
from actors.trainer.trainer import RayTrainers
from rlaif.config.schema import Config
from rlaif.errors import EngineError, UserError
from rlaif.storage.record_schema import from_json, to_json
from tests.unit.actors.simulation.loop import SimulatedLoop
from tests.unit.actors.simulation.pool import PoolCluster, run_story

LIMIT_S = 600.0  #: that a command waits: longer than everything that is tried again
SURPRISES = (KeyError("generator"), RuntimeError("dictionary changed size"), UserError("no"), EngineError("dead"))


class SimulatedBoard:
    """``actors.cluster.board.Board``, whose store fails or answers late at each question of the driver."""

    def __init__(self, loop: SimulatedLoop, cluster: PoolCluster, rate: float) -> None:
        self.rate = rate
        self.answers: dict[str, bytes] = {}
        self._orders: dict[str, bytes] = {}
        self._loop = loop
        self._cluster = cluster

    def put_order(self, key: str, order: bytes) -> None:
        self._orders[key] = order

    async def orders(self) -> dict[str, bytes]:
        await self._wait()
        orders = dict(self._orders)
        await self._wait()
        return orders

    async def put_answer(self, key: str, answer: bytes) -> None:
        await self._wait()
        self.answers[key] = answer
        await self._wait()
        self._orders.pop(key, None)

    async def _wait(self) -> None:
        await asyncio.sleep(self._cluster.latency())
        if self._loop.choices.random() < self.rate:
            await asyncio.sleep(self._cluster.lag(10))
            raise self._loop.choices.choice([RaySystemError("no route"), OSError("reset"), ValueError("not utf-8")])


class ControlStory:
    """``problems``: the invariants that did not hold. ``surprising``: how often the driver's own code raises."""

    def __init__(self, loop: SimulatedLoop, cluster: PoolCluster) -> None:
        self.loop = loop
        self.choices = loop.choices
        self.cluster = cluster
        self.problems: list[str] = []
        self.surprising = loop.choices.choice([0.0, 0.3])
        self.board = SimulatedBoard(loop, cluster, loop.choices.choice([0.0, 0.1, 0.4]))

    async def live(self) -> None:
        pools = RayPools(Config(generator={"engine": "scripted", "max": 3}))
        trainers = RayTrainers(None)  # type: ignore[arg-type]
        pool = await pools.open("generator", "model")
        for owner, verb in ((pool, "stats"), (pool, "resize"), (trainers, "ranks")):
            setattr(owner, verb, self._surprise(getattr(owner, verb)))
        async with serve_orders(self.board, pools, trainers, {"revise": ("generator", "scorer")}):  # type: ignore[arg-type]
            commands = [asyncio.create_task(self._command(number)) for number in range(self.choices.choice([1, 5]))]
            await asyncio.gather(*commands)
            self.board.rate = self.surprising = 0.0
            await self._ask("last", PoolOrder())
        await pool.close()
        self.problems += await self.cluster.at_rest()

    def _surprise(self, verb: Any) -> Any:
        def surprise(*args: Any) -> Any:
            if self.choices.random() < self.surprising:
                raise self.choices.choice(SURPRISES)
            return verb(*args)

        return surprise

    async def _command(self, number: int) -> None:
        """As ``rlaif status`` and ``rlaif scale``."""
        for time in range(self.choices.choice([1, 4])):
            await asyncio.sleep(self.choices.random() * 40)
            orders = [("generator", 2), ("generator", 9), ("scorer", 1)]
            role, size = self.choices.choice([(None, 0), *orders])
            await self._ask(f"{number}-{time}", PoolOrder(role=role, size=size))

    async def _ask(self, key: str, order: PoolOrder) -> None:
        self.board.put_order(key, to_json(order))
        deadline = self.loop.time() + LIMIT_S
        while key not in self.board.answers:
            if self.loop.time() > deadline:
                self.problems.append(f"{order} is never answered")
                return
            await asyncio.sleep(0.3)
        self._check(order, from_json(ControlReply, self.board.answers[key]))

    def _check(self, order: PoolOrder, answer: ControlReply) -> None:
        wrong = {9: "9 engines asked for", 1: "no engines now"}.get(order.size, "")
        if self.surprising or answer.failure:
            return
        if wrong not in (answer.mistake or "") or bool(answer.mistake) != bool(wrong):
            self.problems.append(f"{order} was answered {answer}")
        if "generator" not in answer.pools:
            self.problems.append(f"{order} was answered without the pool: {answer}")


def control_story(seed: int) -> list[str]:
    """The problems of one schedule."""
    loop = SimulatedLoop(seed)
    cluster = PoolCluster(loop)
    story = ControlStory(loop, cluster)
    return run_story(loop, cluster, story.problems, story.live())
