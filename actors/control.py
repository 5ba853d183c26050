"""Between a running driver and the commands that ask something of it (``rlaif status``, ``rlaif scale``).

    command ──ask──► Control ◄──next_orders── driver
       ▲                │ ▲                     │
       └─────answer─────┘ └───────answer────────┘

The actor holds the orders that are not answered yet, and nothing else. When it dies, Ray starts it again, a command
asks again (asking twice for a size is the same as asking once), and the run does not notice.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cluster.placement import Phases
from actors.cluster.waiting import within
from actors.cluster.whereabouts import Whereabouts
from actors.pool.pool import PoolStats, RayPools
from actors.trainer.trainer import RayTrainers
from rlaif.errors import RunError, UserError, WaitTimeoutError, describe_error

_logger = logging.getLogger(__name__)

NAME = "control"
CONTROL_POLL_S = 5.0  #: how long the driver's question for orders stays open at most
POLL_TIMEOUT_S = 60.0  #: then it is asked again: the actor may have moved to another node
CONTROL_RETRY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Serve ``role`` with ``size`` engines."""

    role: str
    size: int


@dataclass(frozen=True, kw_only=True)
class ControlReply:
    """Pools and trainers as they are now. ``mistake`` or ``failure``: why the order was not carried out."""

    pools: Mapping[str, PoolStats]
    ranks: Mapping[str, Mapping[int, Whereabouts]]
    mistake: str | None = None
    failure: str | None = None


class Control:
    """The actor."""

    def __init__(self) -> None:
        self._new: dict[str, Scale | None] = {}
        self._asked: dict[str, asyncio.Future[ControlReply]] = {}
        self._changed = asyncio.Event()

    async def ask(self, order: Scale | None) -> ControlReply:
        """What the driver answers to ``order`` (None: only how its pools are). The caller bounds the wait."""
        key = secrets.token_hex(8)  # a count would restart with the actor, and a late answer go to the wrong caller
        self._new[key] = order
        self._asked[key] = asyncio.get_running_loop().create_future()
        self._changed.set()
        try:
            return await self._asked[key]
        finally:
            del self._asked[key]

    async def next_orders(self) -> dict[str, Scale | None]:
        """The orders since the last call, by key; empty when there was none for ``CONTROL_POLL_S``."""
        try:
            await asyncio.wait_for(self._changed.wait(), CONTROL_POLL_S)
        except TimeoutError:
            return {}
        self._changed.clear()
        orders, self._new = self._new, {}
        return orders

    async def answer(self, key: str, answer: ControlReply) -> None:
        """An answer is dropped when its caller no longer waits."""
        waiting = self._asked.get(key)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


@asynccontextmanager
async def serve_orders(pools: RayPools, trainers: RayTrainers, phases: Phases) -> AsyncIterator[str]:
    """Carry out other commands' orders while the ``async with`` block runs; yields the control actor's name."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Control).options(name=NAME, num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    attending = asyncio.create_task(Attendant(actor.remote(), pools, trainers, phases).attend())
    try:
        yield NAME
    finally:
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)


class Attendant:
    """The driver's side: takes orders from the control actor, and answers each when it is carried out."""

    def __init__(self, control: Any, pools: RayPools, trainers: RayTrainers, phases: Phases) -> None:
        self._control = control
        self._pools = pools
        self._trainers = trainers
        self._phases = phases

    async def attend(self) -> None:
        async with asyncio.TaskGroup() as answers:  # orders still being carried out when the run ends are cancelled
            while True:
                for key, order in (await self._next_orders()).items():
                    answers.create_task(self._answer(key, order))

    async def _next_orders(self) -> dict[str, Scale | None]:
        try:
            return await within(POLL_TIMEOUT_S, self._control.next_orders.remote(), "the control actor")
        except (RayError, WaitTimeoutError) as error:
            _logger.warning("control actor: %s", error)
            await asyncio.sleep(CONTROL_RETRY_S)
            return {}

    async def _answer(self, key: str, order: Scale | None) -> None:
        mistake = failure = None
        try:
            if order is not None:
                await self._scale(order)
        except UserError as error:
            mistake = str(error)
        except Exception as error:
            failure = describe_error(error)
        ranks = await self._ranks()
        pools = {role: pool.stats() for role, pool in self._pools.live.items()}
        answer = ControlReply(pools=pools, ranks=ranks, mistake=mistake, failure=failure)
        try:
            sent = self._control.answer.remote(key, answer)
            await within(POLL_TIMEOUT_S, sent, "the control actor to take an answer")
        except (RayError, WaitTimeoutError) as error:
            _logger.warning("control actor: %s", error)

    async def _ranks(self) -> dict[str, dict[int, Whereabouts]]:
        """Empty while a trainer is lost, so that the pools can still be asked about."""
        try:
            return await self._trainers.ranks()
        except RunError as error:
            _logger.warning("trainers: %s", error)
            return {}

    async def _scale(self, order: Scale) -> None:
        pool = self._pools.live.get(order.role)
        if pool is None:
            stages = [stage for stage, roles in self._phases.items() if order.role in roles]
            when = f"it opens in: {', '.join(stages)}" if stages else "this run never opens it"
            raise UserError(f"{order.role}: no engines now; {when}")
        await pool.resize(order.size)
