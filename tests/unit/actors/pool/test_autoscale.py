"""When a pool grows or shrinks on its own."""

from __future__ import annotations

from actors.pool.autoscale import Autoscaler, Load
from rlaif.config.schema import Autoscale

SETTINGS = Autoscale(enabled=True, up_after_s=10, down_after_s=60)


def load(engines: int = 2, *, full: bool = False, spare: bool = False, starting: int = 0) -> Load:
    return Load(engines=engines, starting=starting, full=full, spare=spare)


def scaler() -> Autoscaler:
    return Autoscaler(SETTINGS, low=1, high=4)


def test_it_grows_by_one_when_all_were_full_long_enough() -> None:
    decide = scaler()
    assert [decide.step(now, load(full=True)) for now in (0, 5, 9.9, 10)] == [0, 0, 0, 1]
    assert [decide.step(now, load(3, full=True)) for now in (11, 20, 21)] == [0, 0, 1], "the time starts over"


def test_it_shrinks_by_one_when_one_was_not_needed_long_enough() -> None:
    decide = scaler()
    assert [decide.step(now, load(spare=True)) for now in (0, 30, 59, 60)] == [0, 0, 0, -1]


def test_a_reason_that_goes_away_is_forgotten() -> None:
    decide = scaler()
    seen = [(0, load(full=True)), (9, load(full=True)), (9.5, load()), (10, load(full=True)), (19, load(full=True))]
    assert [decide.step(now, one) for now, one in seen] == [0] * 5
    assert decide.step(20, load(full=True)) == 1


def test_load_that_swings_about_the_band_changes_nothing() -> None:
    decide = scaler()
    for now in range(0, 1000, 4):
        swing = now // 8 % 2 == 0
        assert decide.step(now, load(full=swing, spare=not swing)) == 0


def test_it_stays_within_its_bounds() -> None:
    decide = scaler()
    assert {decide.step(now, load(4, full=True)) for now in range(0, 100, 5)} == {0}
    assert {decide.step(now, load(1, spare=True)) for now in range(100, 300, 5)} == {0}


def test_it_waits_for_engines_that_start() -> None:
    decide = scaler()
    assert {decide.step(now, load(full=True, starting=1)) for now in range(0, 100, 5)} == {0}
    assert [decide.step(now, load(3, full=True)) for now in (100, 105, 110)] == [0, 0, 1]
