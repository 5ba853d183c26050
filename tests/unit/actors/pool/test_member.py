"""One engine's states: what moves it from one to another."""

from __future__ import annotations

import pytest

from actors.pool.member import Member, MemberState
from tests.unit.actors.pool.engines import FakeEngine


@pytest.fixture
def member() -> Member:
    return Member(FakeEngine("generator-0"))  # type: ignore[arg-type]


def test_isolation_lasts_until_the_last_suspect_is_back(member: Member) -> None:
    assert member.state is MemberState.SERVING
    member.isolate()
    member.load(2)
    member.unload(1)
    assert member.state is MemberState.ISOLATED
    member.unload(1)
    assert member.state is MemberState.SERVING


def test_only_an_empty_engine_that_serves_is_isolated(member: Member) -> None:
    member.load(1)
    with pytest.raises(AssertionError, match="generator-0 is serving and holds 1"):
        member.isolate()
    member.unload(1)
    member.drain()
    with pytest.raises(AssertionError, match="generator-0 is draining"):
        member.isolate()


def test_a_draining_engine_stays_so_when_its_rows_are_back(member: Member) -> None:
    member.isolate()
    member.load(1)
    member.drain()
    member.unload(1)
    assert member.state is MemberState.DRAINING


def test_the_first_cause_of_a_death_counts_and_a_lost_node_is_not_forgotten(member: Member) -> None:
    member.load(3)
    assert member.die("hung").cause == "hung"
    member.die("killed", lost_with_node=True)
    member.die("unreachable")
    assert member.death is not None
    assert (member.death.cause, member.death.lost_with_node) == ("hung", True)
    member.drain()
    member.unload(3)
    assert member.state is MemberState.DEAD, "nothing brings it back"


def test_an_engine_is_idle_from_the_last_row_that_came_back(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("actors.pool.member.time.monotonic", lambda: now)
    assert member.idle_s() == 0.0, "it holds nothing"
    member.load(2)
    now = 110.0
    member.load(1)
    assert member.idle_s() == 10.0, "more rows are no sign of life"
    member.unload(1)
    assert member.idle_s() == 0.0
    now = 115.0
    assert member.idle_s() == 5.0
    member.unload(2)
    assert member.idle_s() == 0.0
