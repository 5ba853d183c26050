"""Bookkeeping of rows in flight, and which rows are suspected of an engine's death."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.pool.shipment import PoolCall, Shipment, is_condemned, split_suspects
from rlaif.interfaces import Done


def done(row: int) -> Done[int, int]:
    return Done(row=row, record=row, failure=None)


def test_a_run_reads_no_more_than_is_asked_for_and_splits_what_is_left() -> None:
    read = []

    def source() -> Iterator[int]:
        for row in range(100):
            read.append(row)
            yield row

    call = PoolCall("task", source())
    assert call.take(8, sharers=4) == list(range(8))
    assert len(read) == 8
    assert call.wants(limit=9) and not call.wants(limit=8)
    listed = PoolCall("task", list(range(10)))
    assert listed.take(8, sharers=4) == [0, 1, 2], "four engines share ten rows"


async def test_a_run_ends_when_every_row_was_taken_and_returned_rows_are_sent_again() -> None:
    call = PoolCall("task", [1, 2])
    assert call.take(2, sharers=1) == [1, 2]
    call.give_back([2])
    assert call.wants(limit=1)
    call.put([done(1)])
    assert await call.next() == [done(1)]
    assert call.take(5, sharers=1) == [2]
    assert call.take(5, sharers=1) == [], "the end of the rows"
    assert await call.next() == [], "wakes a consumer that has everything"
    call.put([done(2)])
    assert await call.next() == [done(2)]
    assert await call.next() is None


async def test_a_source_that_fails_fails_the_run() -> None:
    call = PoolCall("task", map(int, ["1", "two"]))
    assert call.take(8, sharers=1) == []
    with pytest.raises(ValueError, match="two"):
        await call.next()


def test_suspects_are_sent_in_groups_once_and_then_one_at_a_time() -> None:
    call = PoolCall("task", [])
    first = Shipment(call=call, rows=tuple(range(40)))
    groups = split_suspects(first, range(5, 40), group=16)
    assert [group.rows for group in groups] == [tuple(range(5, 21)), tuple(range(21, 37)), (37, 38, 39)]
    alone = split_suspects(groups[0], [7, 8], group=16)
    assert [(shipment.rows, shipment.strikes) for shipment in alone] == [((7,), 2), ((8,), 2)]


def test_only_the_last_suspect_of_a_shipment_is_condemned() -> None:
    call = PoolCall("task", [])
    assert not is_condemned(Shipment(call=call, rows=(1,)), [1]), "its first engine"
    assert not is_condemned(Shipment(call=call, rows=(1, 2), strikes=1), [1, 2]), "it might have been the other"
    assert is_condemned(Shipment(call=call, rows=(1, 2), strikes=1), [2]), "the other had finished"
