"""Between a running driver and the commands that ask something of it (``rlaif status``, ``rlaif scale``).

    command ──order──► board ◄──orders── driver
       ▲                │ ▲                │
       └────answer──────┘ └─────answer─────┘

The board (``actors.cluster.board``) holds the orders that are not answered yet, as JSON. An order is carried out again
when its answer did not arrive: asking twice for a size is the same as asking once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError

from actors.cluster.announcement import Announcement, find_run
from actors.cluster.board import Board
from actors.cluster.placement import Phases
from actors.cluster.whereabouts import Whereabouts
from actors.pool.pool import PoolStats, RayPools
from actors.trainer.trainer import RayTrainers
from rlaif.errors import DataError, RunError, UserError, WaitTimeoutError, describe_error
from rlaif.storage.record_schema import from_json, to_json

_logger = logging.getLogger(__name__)

ORDERS_POLL_S = 0.5  #: between two looks of the driver at the board
ANSWER_POLL_S = 0.3  #: of a command
LOOKS_AT_DRIVER = 10  #: every so many looks at the board, a command looks for the driver


@dataclass(frozen=True, kw_only=True)
class PoolOrder:
    """What a command wants: a report on pools and trainers, after ``role`` has ``size`` engines if it names one."""

    role: str | None = None
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class ControlReply:
    """Pools and trainers as they are now. ``mistake`` or ``failure``: why the order was not carried out."""

    pools: Mapping[str, PoolStats]
    ranks: Mapping[str, Mapping[int, Whereabouts]]
    mistake: str | None = None
    failure: str | None = None


# -------------------------------------------------------------------------------------------------- the command
def ask_driver(run_dir: Path, run: Announcement, order: PoolOrder, timeout_s: float, what: str) -> ControlReply:
    """The driver's reply, once ``order`` is carried out; ``what``: is waited for, in messages.

    Raises UserError when the run has ended, RunError when it cannot be asked, WaitTimeoutError.
    """
    try:
        answer = _await_answer(Board(run.address, run.namespace), to_json(order), run_dir, timeout_s)
    except RayError as error:
        raise RunError(f"{run_dir}: its Ray cluster at {run.address}: {describe_error(error)}") from error
    if answer is None:
        raise WaitTimeoutError(f"waited {timeout_s:g} s for {what} (driver: pid {run.pid} on {run.host})")
    try:
        return from_json(ControlReply, answer)
    except DataError as error:
        raise RunError(f"{run_dir}: its driver's answer is not one of this version of rlaif") from error


def _await_answer(board: Board, order: bytes, run_dir: Path, timeout_s: float) -> bytes | None:
    """None when there is no answer in time. Raises UserError when the driver has ended."""
    key, deadline = secrets.token_hex(8), time.monotonic() + timeout_s
    board.put_order(key, order)
    try:
        for look in itertools.count(1):
            answer = board.answer_to(key)
            if answer is not None or time.monotonic() >= deadline:
                return answer
            if look % LOOKS_AT_DRIVER == 0:
                find_run(run_dir)
            time.sleep(ANSWER_POLL_S)
        raise AssertionError
    finally:
        with suppress(RayError):
            board.forget(key)


# --------------------------------------------------------------------------------------------------- the driver
@asynccontextmanager
async def serve_orders(board: Board, pools: RayPools, trainers: RayTrainers, phases: Phases) -> AsyncIterator[None]:
    """Carry out other commands' orders while the ``async with`` block runs."""
    attending = asyncio.create_task(Attendant(board, pools, trainers, phases).attend())
    try:
        yield
    finally:
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)


class Attendant:
    """Takes orders from the board, and answers each when it is carried out."""

    def __init__(self, board: Board, pools: RayPools, trainers: RayTrainers, phases: Phases) -> None:
        self._board = board
        self._pools = pools
        self._trainers = trainers
        self._phases = phases
        self._taken: set[str] = set()  #: keys of the orders that are being carried out

    async def attend(self) -> None:
        """Until it is cancelled. An error ends nothing but the answer that it was raised for."""
        async with asyncio.TaskGroup() as answers:  # orders still being carried out when the run ends are cancelled
            while True:
                for key, order in (await self._orders()).items():
                    if key not in self._taken:
                        self._taken.add(key)
                        answers.create_task(self._answer(key, order))
                await asyncio.sleep(ORDERS_POLL_S)

    async def _orders(self) -> Mapping[str, bytes]:
        try:
            return await self._board.orders()
        except Exception as error:
            _logger.warning("the board of orders: %s", describe_error(error))
            return {}

    async def _answer(self, key: str, order: bytes) -> None:
        try:
            await self._board.put_answer(key, to_json(await self._reply(order)))
        except Exception as error:  # the order stays on the board, and is carried out again
            _logger.warning("the board of orders: %s", describe_error(error))
        finally:
            self._taken.discard(key)

    async def _reply(self, order: bytes) -> ControlReply:
        mistake = failure = None
        try:
            await self._scale(from_json(PoolOrder, order))
        except DataError:
            mistake = "the run's version of rlaif does not know this order"
        except UserError as error:
            mistake = str(error)
        except Exception as error:
            failure = describe_error(error)
        pools: dict[str, PoolStats] = {}
        try:
            pools = {role: pool.stats() for role, pool in self._pools.live.items()}
        except Exception as error:
            failure = failure or describe_error(error)
        return ControlReply(pools=pools, ranks=await self._ranks(), mistake=mistake, failure=failure)

    async def _ranks(self) -> dict[str, dict[int, Whereabouts]]:
        """Empty while a trainer is lost, so that the pools can still be asked about."""
        try:
            return await self._trainers.ranks()
        except Exception as error:
            _logger.warning("trainers: %s", describe_error(error))
            return {}

    async def _scale(self, order: PoolOrder) -> None:
        if order.role is None:
            return
        pool = self._pools.live.get(order.role)
        if pool is None:
            stages = [stage for stage, roles in self._phases.items() if order.role in roles]
            when = f"it opens in: {', '.join(stages)}" if stages else "this run never opens it"
            raise UserError(f"{order.role}: no engines now; {when}")
        await pool.resize(order.size)
