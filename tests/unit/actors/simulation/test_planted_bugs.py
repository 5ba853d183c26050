"""A simulation that finds nothing may be blind. Each bug here was in the code, or is of the kind that it must find:
with the bug planted, some schedule says so, in the words of the invariant that it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from ray.exceptions import RayError

from actors.cluster.waiting import within
from actors.control import Attendant
from actors.pool import deaths, roster
from actors.pool.background import BackgroundTasks
from actors.pool.deaths import Deaths
from actors.pool.dispatch import Dispatch
from actors.pool.remote_engine import RemoteEngine
from actors.pool.roster import Roster
from actors.pool.shipment import PoolCall
from actors.trainer import mailbox
from actors.trainer.fit import Fit
from actors.trainer.mailbox import Mailbox
from rlaif.errors import RlaifError
from rlaif.storage.record_schema import to_json
from tests.unit.actors.simulation.control import control_story
from tests.unit.actors.simulation.pool import hopeless_story, outage_story, poison_story, pool_story
from tests.unit.actors.simulation.trainer import trainer_story

NUM_SCHEDULES = 1000  #: tried before a bug counts as not found
BUGS: dict[str, tuple[Callable[[int], list[str]], str, Callable[[], Any]]] = {}


def bug(story: Callable[[int], list[str]], symptom: str) -> Callable[[Callable[[], Any]], None]:
    """Register a function that plants a bug: a context manager."""

    def register(plant: Callable[[], Any]) -> None:
        BUGS[plant.__name__] = story, symptom, plant

    return register


# ------------------------------------------------------------------------------------------------------ pools
@bug(pool_story, "lives after close")
def a_closed_pool_hires() -> Any:
    return mock.patch.object(Roster, "_check_open", lambda self: None)


@bug(pool_story, "placement groups leak")
def a_hire_that_is_cancelled_while_it_waits_for_a_sync_is_forgotten() -> Any:
    async def hire_one(self: Any) -> None:
        name = f"{self.role}-{next(self._numbers)}"
        engine = await roster.start_engine(name, self.role, self._model, self._settings)
        async with self._syncing:
            await self._catch_up(engine)
            member = roster.Member(engine)
            self._set_members([*self._members, member])
        self._welcome(member)

    return mock.patch.object(Roster, "_hire_one", hire_one)


@bug(pool_story, "lives after close")
def an_engine_whose_close_is_cancelled_is_not_killed() -> Any:
    async def close(self: Any) -> None:
        with contextlib.suppress(RayError, RlaifError):
            await within(10.0, self._handle.close.remote(), "it to close")
        self.kill()

    return mock.patch.object(RemoteEngine, "close", close)


@bug(outage_story, "engines serve after a day")
def the_pause_between_replacements_grows_for_ever() -> Any:
    return mock.patch.object(roster, "REPLACE_PAUSE_MOST_S", float("inf"))


@bug(outage_story, "1 engines serve after a day")
def a_replacement_is_given_up() -> Any:
    async def replace(self: Any) -> None:
        with contextlib.suppress(Exception):
            await self._hire_one()

    return mock.patch.object(Roster, "_replace", replace)


@bug(poison_story, "engines in a row died without one good row")
def deaths_by_poison_rows_are_held_against_the_engines() -> Any:
    return mock.patch.object(Dispatch, "prove", lambda self: False)


@bug(hopeless_story, "ends well")
def engines_that_die_of_every_row_are_never_blamed() -> Any:
    return mock.patch.object(Dispatch, "prove", lambda self: True)


@bug(pool_story, "is condemned, and")
def rows_of_a_lost_node_are_suspected() -> Any:
    return mock.patch.multiple(deaths, NODE_GRACE_S=0.0, SILENT_GRACE_S=0.0)


@bug(pool_story, "do not come back")
def a_row_that_was_in_a_dead_engine_is_lost() -> Any:
    recover = Dispatch.recover

    def forget(self: Any, delivery: Any, death: Any) -> None:
        for place in list(delivery.unfinished)[1:]:
            del delivery.unfinished[place]
            delivery.call.out -= 1
        recover(self, delivery, death)

    return mock.patch.object(Dispatch, "recover", forget)


@bug(pool_story, "come back more than once")
def rows_of_a_dead_engine_are_sent_twice() -> Any:
    recover = Dispatch.recover

    def double(self: Any, delivery: Any, death: Any) -> None:
        delivery.call.give_back(list(delivery.unfinished.values()))
        recover(self, delivery, death)

    return mock.patch.object(Dispatch, "recover", double)


@bug(pool_story, "ever")
def a_consumer_that_has_everything_is_not_woken() -> Any:
    read = PoolCall._read

    def silent(self: Any, count: int) -> list[Any]:
        with mock.patch.object(self, "put"):
            return read(self, count)

    return mock.patch.object(PoolCall, "_read", silent)


@bug(pool_story, "waits for ever")
def hung_engines_are_not_watched() -> Any:
    async def watch(self: Any) -> None:
        return None

    return mock.patch.object(Deaths, "watch", watch)


@bug(pool_story, "engines serve, not")
def an_engine_that_dies_idle_is_not_noticed() -> Any:
    async def attend(self: Any, member: Any) -> None:
        return None

    return mock.patch.object(Deaths, "attend", attend)


@bug(pool_story, "ever")
def tasks_of_a_closed_pool_go_on() -> Any:
    async def cancel(self: Any) -> None:
        return None

    return mock.patch.object(BackgroundTasks, "cancel", cancel)


# ---------------------------------------------------------------------------------------------------- control
@bug(control_story, "never answered")
def an_unexpected_error_ends_the_attendant() -> Any:
    async def answer(self: Any, key: str, order: Any) -> None:
        await self._board.put_answer(key, to_json(await self._reply(order)))
        self._taken.discard(key)

    return mock.patch.object(Attendant, "_answer", answer)


@bug(control_story, "never answered")
def an_order_whose_answer_was_lost_counts_as_answered() -> Any:
    async def answer(self: Any, key: str, order: Any) -> None:
        with contextlib.suppress(Exception):
            await self._board.put_answer(key, to_json(await self._reply(order)))
            self._taken.discard(key)

    return mock.patch.object(Attendant, "_answer", answer)


# --------------------------------------------------------------------------------------------------- trainers
@bug(trainer_story, "exception lost")
def a_question_is_left_when_the_fit_ends() -> Any:
    async def while_fitting(self: Any, answer: Any) -> Any:
        asking = asyncio.ensure_future(self.ask(answer))
        await asyncio.wait([self._fit, asking], return_when=asyncio.FIRST_COMPLETED)
        return await asking if asking.done() else None

    return mock.patch.object(Fit, "_while_fitting", while_fitting)


@bug(trainer_story, "reports are lost")
def reports_are_dropped_with_the_reply_that_brings_them() -> Any:
    async def reports(self: Any, taken: int) -> Any:
        there = await take(self, taken)
        self._reports, self._taken = [], taken + len(there)
        return there

    take = Mailbox.reports
    return mock.patch.object(Mailbox, "reports", reports)


@bug(trainer_story, "gave no sign of life")
def a_long_order_is_taken_for_a_hang() -> Any:
    async def beat(self: Any, rank: int) -> None:
        return None

    return mock.patch.object(Mailbox, "beat", beat)


@bug(trainer_story, "lives after close")
def an_aborted_fit_leaves_its_mailbox() -> Any:
    async def abort(self: Any) -> None:
        await asyncio.sleep(0)

    return mock.patch.object(Fit, "abort", abort)


@bug(trainer_story, "was learned after")
def a_batch_is_lost_with_a_rank() -> Any:
    async def start_point(self: Any, rank: int, handle: Any, where: Any) -> Any:
        checkpoint, _ = await start(self, rank, handle, where)
        return checkpoint, self._answered

    start = Mailbox.start_point
    return mock.patch.object(Mailbox, "start_point", start_point)


@bug(trainer_story, "was not begun")
def a_checkpoint_that_was_being_written_is_forgotten_with_a_rank() -> Any:
    return mock.patch.object(mailbox, "REPEATED", ("learn",))


@bug(trainer_story, "was learned after")
def what_was_learned_while_a_checkpoint_was_written_counts_as_part_of_it() -> Any:
    async def answer(self: Any, reply: Any) -> None:
        finishes = any(o.number == reply.number and o.verb == "finish_checkpoint" for o in self._orders)
        await take(self, reply)
        if finishes and reply.result:
            self._kept_after = reply.number

    take = Mailbox.answer
    return mock.patch.object(Mailbox, "answer", answer)


# ------------------------------------------------------------------------------------------------------ tests
@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_planted_bug_is_found(name: str) -> None:
    story, symptom, plant = BUGS[name]
    with plant():
        problems = next((found for seed in range(NUM_SCHEDULES) if (found := says(story(seed), symptom))), None)
    assert problems, f"no schedule of {NUM_SCHEDULES} says '{symptom}'"


def says(problems: list[str], symptom: str) -> list[str]:
    return [problem for problem in problems if symptom in problem]
