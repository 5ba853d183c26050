"""Thousands of schedules of a pool, of orders to a driver and of a trainer: whatever fails, and in whatever order,
every row comes out once, nothing is left behind, nobody waits for ever, and no exception is lost.

NUM_SCHEDULES says how many of each (``make simulate``). A failure names its seed: the same seed is the same schedule.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.unit.actors.simulation.control import control_story
from tests.unit.actors.simulation.loop import SimulatedLoop
from tests.unit.actors.simulation.pool import hopeless_story, outage_story, poison_story, pool_story
from tests.unit.actors.simulation.trainer import trainer_story

NUM_SCHEDULES = int(os.environ.get("NUM_SCHEDULES", "1000"))


@pytest.mark.parametrize("story", [pool_story, control_story, trainer_story])
def test_every_schedule_ends_well(story: Callable[[int], list[str]]) -> None:
    assert {seed: problems for seed in range(NUM_SCHEDULES) if (problems := story(seed))} == {}


#: A newcomer of an order that failed was one engine too many (two seeds); a pool that had to prove its engines did not
#: try the good row of a call that its consumer had left.
@pytest.mark.parametrize("seed", [13360, 14428, 16103])
def test_what_long_runs_found_stays_mended(seed: int) -> None:
    assert pool_story(seed) == []


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_is_replaced_however_long_that_takes(seed: int) -> None:
    assert outage_story(seed) == []


def test_any_number_of_poison_rows_in_a_row_is_quarantined_and_good_ones_go_on() -> None:
    assert {seed: problems for seed in range(60) if (problems := poison_story(seed))} == {}


def test_engines_that_begin_to_die_of_every_row_end_the_run() -> None:
    assert {seed: problems for seed in range(20) if (problems := hopeless_story(seed))} == {}


@pytest.mark.parametrize("story", [pool_story, control_story, trainer_story])
def test_a_seed_is_a_schedule(story: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failure names can be run again."""
    loops: list[SimulatedLoop] = []
    forget = SimulatedLoop.forget
    monkeypatch.setattr(SimulatedLoop, "forget", lambda loop: (loops.append(loop), forget(loop)))
    for seed in (3, 3, 4, 4):
        story(seed)
    ends = [(loop.callbacks, loop.time(), loop.choices.random()) for loop in loops]
    assert ends[0] == ends[1] != ends[2] == ends[3]
