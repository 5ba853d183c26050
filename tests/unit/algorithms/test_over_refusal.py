"""Drift from the first batch, and the guard against over-refusal."""

from dataclasses import replace

import pytest

from rlaif.algorithms.over_refusal import NUM_PHRASES, boilerplate_rate, update_guard
from tests.unit.algorithms.test_experience import sample


def batch(*scores: float, axis: str = "helpful", length: int = 4):
    return [sample(i, length, score=score, axis=axis) for i, score in enumerate(scores)]


def test_the_level_is_a_moving_mean_and_the_first_batch_stays():
    first = update_guard(None, batch(1.0, 3.0))
    assert (first.first_helpful, first.helpful, first.first_length) == (2.0, 2.0, 4.0)
    second = update_guard(first, batch(1.0, 1.0, length=9))
    assert second.helpful == pytest.approx(2.0 + 0.2 * (1.0 - 2.0))
    assert (second.first_helpful, second.first_length) == (2.0, 4.0)


def test_only_helpful_prompts_count():
    first = update_guard(None, batch(1.0) + batch(-50.0, axis="red_team"))
    assert first.helpful == 1.0
    assert update_guard(first, batch(-50.0, axis="red_team")) == first
    without = update_guard(None, batch(1.0, axis="red_team"))
    assert without.shortfall(0.0) == 0.0
    assert update_guard(without, batch(4.0)).first_helpful == 4.0


def test_shortfall_begins_beyond_the_margin_and_ends_with_it():
    seen = replace(update_guard(None, batch(2.0)), helpful=1.5)
    assert seen.shortfall(0.0) == pytest.approx(0.5)
    assert seen.shortfall(0.2) == pytest.approx(0.3)
    assert seen.shortfall(0.5) == 0.0
    assert replace(seen, helpful=9.0).shortfall(0.0) == 0.0


def test_boilerplate_rate():
    assert boilerplate_rate([(1, 2, 3)]) == 0.0
    assert boilerplate_rate([(1, 2, 3, 4)] * 50) == 1.0
    different = [tuple(range(start, start + 4)) for start in range(0, 400, 4)]
    assert boilerplate_rate(different) == pytest.approx(NUM_PHRASES / 100)
    assert boilerplate_rate([*different, *[(9, 9, 9, 9)] * 100]) == pytest.approx((100 + NUM_PHRASES - 1) / 200)
