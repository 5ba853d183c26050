"""Bookkeeping of rows in flight, and which rows are suspected of an engine's death."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actors.pool.shipment import PoolCall, Shipment, after_death, condemned
from rlaif.interfaces import Done


def done(row: int) -> Done[int, int]:
    return Done(row=row, record=row, failure=None)


def test_a_run_reads_no_more_than_is_asked_for_and_splits_what_is_left() -> None:
    read = []

    def source() -> Iterator[int]:
        for row in range(100):
            read.append(row)
            yield row

    run = PoolCall("task", source())
    assert run.take(8, sharers=4) == list(range(8))
    assert len(read) == 8
    assert run.wants(limit=9) and not run.wants(limit=8)
    listed = PoolCall("task", list(range(10)))
    assert listed.take(8, sharers=4) == [0, 1, 2], "four engines share ten rows"


async def test_a_run_ends_when_every_row_was_taken_and_returned_rows_travel_again() -> None:
    run = PoolCall("task", [1, 2])
    assert run.take(2, sharers=1) == [1, 2]
    run.give_back([2])
    assert run.wants(limit=1)
    run.put([done(1)])
    assert await run.next() == [done(1)]
    assert run.take(5, sharers=1) == [2]
    assert run.take(5, sharers=1) == [], "the end of the rows"
    assert await run.next() == [], "wakes a consumer that has everything"
    run.put([done(2)])
    assert await run.next() == [done(2)]
    assert await run.next() is None


async def test_a_source_that_fails_fails_the_run() -> None:
    run = PoolCall("task", map(int, ["1", "two"]))
    assert run.take(8, sharers=1) == []
    with pytest.raises(ValueError, match="two"):
        await run.next()


def test_suspects_travel_in_groups_once_and_then_alone() -> None:
    run = PoolCall("task", [])
    first = Shipment(run=run, rows=tuple(range(40)))
    groups = after_death(first, range(5, 40), group=16)
    assert [group.rows for group in groups] == [tuple(range(5, 21)), tuple(range(21, 37)), (37, 38, 39)]
    alone = after_death(groups[0], [7, 8], group=16)
    assert [(shipment.rows, shipment.strikes) for shipment in alone] == [((7,), 2), ((8,), 2)]


def test_only_a_suspect_that_was_alone_is_condemned() -> None:
    run = PoolCall("task", [])
    assert not condemned(Shipment(run=run, rows=(1,)), [1]), "its first engine"
    assert not condemned(Shipment(run=run, rows=(1, 2), strikes=1), [1, 2]), "it might have been the other"
    assert condemned(Shipment(run=run, rows=(1, 2), strikes=1), [2]), "the other had finished"
