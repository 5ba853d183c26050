"""Which engine gets which rows, rule by rule."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from actors.pool.dispatch import SUSPECT_SHARE, Dispatch
from actors.pool.member import Member, MemberState
from actors.pool.shipment import Delivery
from rlaif.interfaces import Failure
from tests.unit.actors.pool.engines import back, dispatch_of, engines


def sent(deliveries: Iterable[Delivery]) -> list[tuple[str, tuple[Any, ...]]]:
    return [(delivery.member.name, delivery.shipment.rows) for delivery in deliveries]


def finish(dispatch: Dispatch, delivery: Delivery, *places: int) -> bool:
    return dispatch.take_back(delivery, [(place, f"record of {delivery.unfinished[place]}", None) for place in places])


def die(dispatch: Dispatch, delivery: Delivery, *, with_node: bool = False) -> None:
    """The engine dies, with this delivery as the only one in it."""
    delivery.stop()
    dispatch.recover(delivery, delivery.member.die("exit 7", lost_with_node=with_node))


def test_dispatch_and_all_that_it_imports_know_no_ray() -> None:
    code = "import sys, actors.pool.dispatch; assert 'ray' not in sys.modules, 'ray was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_engine_that_holds_fewest_rows_gets_the_next_chunk() -> None:
    dispatch, members = dispatch_of(max_in_flight=8, chunk_rows=2), engines(3)
    dispatch.open("task", range(100))
    members[0].load(5)
    members[1].load(2)
    numbers = [int(name[-1]) for name, _ in sent(dispatch.deliveries(members))]
    assert numbers == [2, 1, 2, 1, 2, 0, 1, 2]
    assert [member.holds for member in members] == [7, 8, 8]


def test_a_chunk_is_never_more_than_half_of_what_an_engine_may_hold() -> None:
    dispatch, members = dispatch_of(max_in_flight=6, chunk_rows=32), engines(1)
    dispatch.open("task", range(100))
    assert sent(dispatch.deliveries(members)) == [("generator-0", (0, 1, 2)), ("generator-0", (3, 4, 5))]


def test_an_engine_of_one_row_gets_one_row() -> None:
    dispatch, members = dispatch_of(max_in_flight=1), engines(1)
    dispatch.open("task", range(100))
    assert sent(dispatch.deliveries(members)) == [("generator-0", (0,))]


def test_calls_take_turns() -> None:
    dispatch, members = dispatch_of(max_in_flight=8, chunk_rows=2), engines(1)
    dispatch.open("task", range(100))
    dispatch.open("task", range(100, 200))
    assert [rows for _, rows in sent(dispatch.deliveries(members))] == [(0, 1), (100, 101), (2, 3), (102, 103)]


def test_the_last_rows_are_split_among_all_engines() -> None:
    dispatch, members = dispatch_of(max_in_flight=8, chunk_rows=4), engines(3)
    dispatch.open("task", list(range(6)))
    assert sent(dispatch.deliveries(members)) == [
        ("generator-0", (0, 1)),
        ("generator-1", (2, 3)),
        ("generator-2", (4,)),
        ("generator-2", (5,)),
    ]


async def test_rows_are_not_read_faster_than_the_consumer_takes_their_results() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for row in range(1000):
            read.append(row)
            yield row

    dispatch, members = dispatch_of(max_in_flight=8, chunk_rows=4), engines(1)
    call = dispatch.open("task", source())
    while deliveries := list(dispatch.deliveries(members)):
        for delivery in deliveries:
            assert finish(dispatch, delivery, *delivery.unfinished)
    assert len(read) == 16, "what the engine may hold, and as much again for the consumer"
    assert len(await back(call) or []) == 16
    list(dispatch.deliveries(members))
    assert len(read) == 24


@pytest.mark.parametrize("leave", [Member.drain, lambda member: member.die("exit 7"), Member.isolate])
def test_only_engines_that_serve_get_rows(leave: Any) -> None:
    dispatch, members = dispatch_of(), engines(2)
    leave(members[0])
    dispatch.open("task", range(100))
    assert {name for name, _ in sent(dispatch.deliveries(members))} == {"generator-1"}


def test_suspects_get_an_empty_engine_in_groups_and_then_one_at_a_time() -> None:
    dispatch, members = dispatch_of(max_in_flight=16, chunk_rows=8), engines(3)
    dispatch.open("task", list(range(3)))
    (first,) = dispatch.deliveries(members[:1])
    die(dispatch, first)
    assert dispatch.waiting == 3
    assert 16 // SUSPECT_SHARE == 2
    group, rest = dispatch.deliveries(members[1:])
    assert sent([group, rest]) == [("generator-1", (0, 1)), ("generator-2", (2,))]
    assert [member.state for member in members[1:]] == [MemberState.ISOLATED] * 2
    dispatch.open("task", range(100, 200))
    assert not list(dispatch.deliveries(members[1:])), "nothing else until the suspects are back"
    finish(dispatch, rest, 0)
    assert {name for name, _ in sent(dispatch.deliveries(members[1:]))} == {"generator-2"}
    die(dispatch, group)
    fresh = engines(2)
    assert [rows for _, rows in sent(dispatch.deliveries(fresh))] == [(0,), (1,)]


def test_the_emptiest_engine_is_left_to_drain_for_suspects() -> None:
    dispatch, members = dispatch_of(max_in_flight=8, chunk_rows=4), engines(3)
    dispatch.open("task", list(range(4)))
    (lost, *_) = dispatch.deliveries(members[2:])
    members[0].load(1)
    members[1].load(4)
    die(dispatch, lost)
    dispatch.open("task", range(100, 200))
    assert {name for name, _ in sent(dispatch.deliveries(members[:2]))} == {"generator-1"}
    members[0].unload(1)
    assert [name for name, _ in sent(dispatch.deliveries(members[:2]))] == ["generator-0"]


async def test_a_row_that_was_the_last_in_an_engine_that_died_after_an_earlier_one_is_condemned() -> None:
    dispatch = dispatch_of()
    call = dispatch.open("task", ["good", "bad"])
    (first,) = dispatch.deliveries(engines(1))
    assert first.shipment.rows == ("good", "bad")
    die(dispatch, first)
    assert await back(call) == [], "it might have been either, or neither"
    good, bad = dispatch.deliveries(engines(2))
    assert finish(dispatch, good, 0)
    die(dispatch, bad)
    records = {done.row: (done.record, done.failure) for done in await back(call) or []}
    killed = Failure(cause="killed its engine twice: exit 7", fault="row")
    assert records == {"good": ("record of good", None), "bad": (None, killed)}
    assert (dispatch.done, dispatch.failed, dispatch.waiting) == (1, 1, 0)
    assert await back(call) is None


async def test_a_row_that_killed_three_engines_is_said_to_have() -> None:
    dispatch = dispatch_of(max_in_flight=16)
    call = dispatch.open("task", [0, 1])
    for _ in range(2):
        (delivery, *_) = dispatch.deliveries(engines(1))
        die(dispatch, delivery)
    (delivery,) = dispatch.deliveries(engines(1))
    die(dispatch, delivery)
    killed = Failure(cause="killed its engine 3 times: exit 7", fault="row")
    assert [done.failure for done in await back(call) or []] == [killed]


def test_the_death_of_a_node_suspects_no_row() -> None:
    dispatch, members = dispatch_of(), engines(1)
    dispatch.open("task", list(range(2)))
    (delivery,) = dispatch.deliveries(members)
    die(dispatch, delivery, with_node=True)
    (again,) = dispatch.deliveries(engines(1))
    assert (again.shipment.rows, again.shipment.strikes) == ((0, 1), 0)
    assert again.member.state is MemberState.SERVING


def test_the_suspects_of_an_abandoned_call_are_dropped() -> None:
    dispatch, members = dispatch_of(), engines(1)
    call = dispatch.open("task", list(range(2)))
    (delivery,) = dispatch.deliveries(members)
    die(dispatch, delivery)
    dispatch.close(call)
    assert not list(dispatch.deliveries(engines(2)))
    assert dispatch.waiting == 0


async def test_a_failed_pool_fails_every_call() -> None:
    dispatch = dispatch_of()
    calls = [dispatch.open("task", range(3)) for _ in range(2)]
    dispatch.fail(RuntimeError("no engine is left"))
    for call in calls:
        with pytest.raises(RuntimeError, match="no engine is left"):
            await call.next()


def test_only_a_good_row_counts_as_one() -> None:
    dispatch, members = dispatch_of(), engines(1)
    dispatch.open("task", list(range(2)))
    (delivery,) = dispatch.deliveries(members)
    assert not dispatch.take_back(delivery, [(0, None, "ValueError")])
    assert dispatch.take_back(delivery, [(1, "record", None)])
    assert (dispatch.done, dispatch.failed) == (1, 1)


def test_load_tells_full_from_spare() -> None:
    dispatch, members = dispatch_of(max_in_flight=8, chunk_rows=4), engines(2)
    idle = dispatch.load(members, 1)
    assert (idle.engines, idle.starting, idle.full, idle.spare) == (2, 1, False, True)
    dispatch.open("task", range(100))
    assert not dispatch.load(members, 0).full, "there is room"
    list(dispatch.deliveries(members))
    busy = dispatch.load(members, 0)
    assert (busy.full, busy.spare) == (True, False)
    assert dispatch.unread and dispatch.waiting == 100 - 16
