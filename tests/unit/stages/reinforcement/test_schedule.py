import asyncio

import numpy as np
import pytest

from rlaif.config.schema import Reinforcement
from rlaif.ids import group_id_of
from rlaif.records import Prompt, Turn
from rlaif.stages.kept_prompts import KeptPrompts
from rlaif.stages.reinforcement.admission import Admission
from rlaif.stages.reinforcement.schedule import Schedule


def prompts(axis: str, num: int) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(id=f"{axis}:{i}", source_file=axis, source_row=i, axis=axis, turns=(Turn(role="human", text="q"),))
        for i in range(num)
    )


@pytest.fixture
def schedule(tmp_path):
    def made(**settings) -> Schedule:
        return Schedule(
            seed=0,
            settings=Reinforcement(batch_size=8, minibatch_size=8, **settings),
            red_team=KeptPrompts(prompts("red_team", 10), tmp_path),
            helpful=KeptPrompts(prompts("helpful", 10), tmp_path),
            compared=np.arange(10, dtype=np.int32)[::2],
        )

    return made


def test_every_prompt_is_met_once_an_epoch(schedule):
    """4 red-team prompts a batch, 10 in all: the first 10 positions are one permutation, the next 10 another."""
    ids = [draw.prompt.id for b in range(5) for draw in schedule().batch(b) if draw.prompt.axis == "red_team"]
    assert len(ids) == 20
    assert sorted(ids[:10]) == sorted(ids[10:]) == sorted(p.id for p in prompts("red_team", 10))
    assert ids[:10] != ids[10:]


def test_a_batch_does_not_depend_on_what_came_before(schedule):
    assert schedule().batch(3) == schedule().batch(3)


def test_ids_are_unique_over_batches_and_groups_are_contiguous(schedule):
    made = schedule(group_size=4, algorithm="rloo")
    draws = [draw for b in range(6) for draw in made.batch(b)]
    assert len({draw.id for draw in draws}) == len(draws)
    assert len({draw.seed for draw in draws}) == len(draws)
    groups = [group_id_of(draw.id) for draw in draws]
    assert groups == [g for i in range(0, len(groups), 4) for g in [groups[i]] * 4]


def test_comparisons_walk_over_the_prompts_that_are_not_held_out(schedule):
    """5 of 10, 4 a version: five versions are four epochs."""
    ids = [prompt.id for version in range(1, 6) for prompt in schedule().comparisons(version, 4)]
    assert len(set(ids)) == 20
    rows = [prompt.source_row for version in range(1, 6) for prompt in schedule().comparisons(version, 4)]
    assert [sorted(rows[i : i + 5]) for i in range(0, 20, 5)] == [[0, 2, 4, 6, 8]] * 4


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
async def test_batches_start_as_far_ahead_as_the_bound_allows(max_staleness):
    admission, started, learned = Admission(0, max_staleness), [], 0

    async def roll_out():
        for batch in range(10):
            await admission.wait_for_turn(batch)
            started.append(batch)

    loop = asyncio.create_task(roll_out())
    for version in range(1, 11):
        await asyncio.sleep(0.001)
        assert len(started) == min(10, learned + max_staleness + 1), "neither more nor fewer"
        learned = version
        await admission.advance(version)
    await asyncio.wait_for(loop, 1)
    assert started == list(range(10))
