"""Which results travel together. Times differ widely on purpose, so that nothing depends on a fast machine."""

from __future__ import annotations

import asyncio

import pytest

from actors.pool import gathering
from actors.pool.gathering import Gathering


async def after(gate: asyncio.Event, result: int) -> int:
    await gate.wait()
    return result


def gated(count: int) -> tuple[list[asyncio.Event], list[asyncio.Task[int]]]:
    gates = [asyncio.Event() for _ in range(count)]
    return gates, [asyncio.create_task(after(gate, number)) for number, gate in enumerate(gates)]


async def test_what_finishes_together_is_sent_together() -> None:
    gates, tasks = gated(5)
    for gate in gates:
        gate.set()
    assert [sorted(results) async for results in Gathering(tasks)] == [[0, 1, 2, 3, 4]]


async def test_the_first_result_does_not_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PACE_S", 3600.0)
    gates, tasks = gated(2)
    lists = aiter(Gathering(tasks))
    gates[0].set()
    assert await anext(lists) == [0]
    gates[1].set()
    assert await anext(lists) == [1], "the last one does not wait either"
    assert [results async for results in lists] == []


async def test_an_eighth_of_all_is_sent_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PACE_S", 3600.0)
    gates, tasks = gated(32)
    lists = aiter(Gathering(tasks))
    gates[0].set()
    assert await anext(lists) == [0]
    following = asyncio.ensure_future(anext(lists))
    for gate in gates[1:4]:
        gate.set()
    await asyncio.sleep(5 * gathering.LINGER_S)
    assert not following.done(), "three of 32 are less than an eighth"
    gates[4].set()
    assert sorted(await following) == [1, 2, 3, 4]
    for task in tasks:
        task.cancel()


async def test_few_results_are_sent_when_their_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PACE_S", 0.05)
    gates, tasks = gated(32)
    lists = aiter(Gathering(tasks))
    for gate in gates[:2]:
        gate.set()
        assert len(await anext(lists)) == 1
    for task in tasks:
        task.cancel()


async def test_an_error_is_raised() -> None:
    async def fails() -> int:
        raise RuntimeError("the engine is dead")

    with pytest.raises(RuntimeError, match="the engine is dead"):
        await anext(aiter(Gathering([asyncio.create_task(fails())])))


async def test_nothing_ends_at_once() -> None:
    assert [results async for results in Gathering([])] == []
