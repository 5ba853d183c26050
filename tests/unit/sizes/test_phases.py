"""How large pools and trainers are in each phase."""

from collections import Counter

import pytest
from hypothesis import given as generated
from hypothesis import strategies as st

from rlaif.config.schema import Config
from rlaif.sizes.phases import PHASES, _Range, _Room, sizes

AUTO = {"engines": "auto", "gpus": 1, "max": 8}


def config(**changes) -> Config:
    roles = {"generator": {**AUTO, "min": 2}, "labeller": AUTO, "scorer": {"gpus": 1}}
    trainers = {name: {"ranks": 3, "gpus": 1} for name in ("policy_trainer", "preference_trainer")}
    return Config.model_validate({**roles, **trainers, "resources": {"cpus": 96, "gpus": 8}, **changes})


def in_phase(name: str, **changes) -> dict[str, int]:
    given = config(**changes)
    return sizes(given, PHASES[name](given))


@pytest.mark.parametrize("phase", ["revise", "compare", "evaluate"])
def test_a_pool_alone_has_all_gpus(phase: str) -> None:
    assert in_phase(phase) == {"generator": 8}


def test_a_pool_grows_no_further_than_its_maximum_or_any_resource_allows() -> None:
    assert in_phase("label", labeller={**AUTO, "max": 5}) == {"labeller": 5}
    assert in_phase("label", resources={"cpus": 6, "gpus": 8}) == {"labeller": 6}
    placed = {**AUTO, "placement": {"judge": 1}}
    assert in_phase("label", labeller=placed, resources={"cpus": 96, "gpus": 8, "custom": {"judge": 4}}) == {
        "labeller": 4
    }


def test_a_pool_that_is_not_automatic_has_its_minimum() -> None:
    assert in_phase("label", labeller={"gpus": 1, "max": 8}) == {"labeller": 1}


def test_roles_side_by_side_share_what_is_left_in_proportion_to_their_minimum() -> None:
    assert in_phase("reinforce") == {"generator": 4, "scorer": 1, "policy_trainer": 3}
    sized = in_phase(
        "reinforce",
        scorer={**AUTO, "min": 1},
        resources={"cpus": 96, "gpus": 12},
    )
    assert sized == {"generator": 6, "scorer": 3, "policy_trainer": 3}


def test_what_asks_for_too_much_keeps_its_minimum() -> None:
    assert in_phase("reinforce", resources={"cpus": 96, "gpus": 1}) == {
        "generator": 2,
        "scorer": 1,
        "policy_trainer": 3,
    }


def test_shares_lie_on_one_card_each() -> None:
    assert in_phase("label", labeller={**AUTO, "gpus": 0.3, "max": 99}) == {"labeller": 24}, "not 26"
    assert in_phase("label", labeller={**AUTO, "tensor_parallel": 3}) == {"labeller": 2}


@pytest.mark.parametrize(("fit_ranks", "in_fit"), [(None, 3), (5, 5), ("auto", 8)])
def test_a_fit_may_have_other_ranks_than_reinforcement(fit_ranks, in_fit) -> None:
    trainers = {
        name: {"ranks": 3, "gpus": 1, "fit_ranks": fit_ranks} for name in ("policy_trainer", "preference_trainer")
    }
    assert in_phase("supervise", **trainers) == {"policy_trainer": in_fit}
    assert in_phase("fit_preference_model", **trainers) == {"preference_trainer": in_fit}
    assert in_phase("reinforce", **trainers)["policy_trainer"] == 3


def test_a_fit_has_no_more_ranks_than_a_batch_has_rows() -> None:
    trainer = {"gpus": 1, "fit_ranks": "auto"}
    small = {"optimization": {"batch_size": 4}}
    assert in_phase("supervise", policy_trainer=trainer, supervision=small) == {"policy_trainer": 4}
    pairs = {"fit": {"batch_size": 6}, "pretraining": {"batch_size": 2}}
    assert in_phase("fit_preference_model", preference_trainer=trainer, preference_model=pairs) == {
        "preference_trainer": 2
    }


def test_without_gpus_nothing_changes() -> None:
    assert sizes(Config(), PHASES["reinforce"](Config())) == {"generator": 1, "scorer": 1, "policy_trainer": 1}


@generated(
    shares=st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 2.0]), st.integers(1, 3)), max_size=5),
    num=st.integers(0, 30),
)
def test_many_units_at_once_lie_as_they_would_one_after_another(shares, num) -> None:
    at_once, one_by_one = ({"resources": {"CPU": 40.0}, "cards": {1.0: 8}} for _ in range(2))
    at_once, one_by_one = _Room(**at_once), _Room(**one_by_one)
    for gpus, parts in shares:
        parts = parts if gpus in (0.0, 1.0, 2.0) else 1
        one = _Range(least=1, most=1, each={"CPU": 1.0}, gpus=gpus, parts=parts)
        assert at_once.take(one, num) == sum(one_by_one.take(one, 1) for _ in range(num))
        assert _left(at_once) == _left(one_by_one)


def _left(room: _Room) -> Counter[float]:
    left: Counter[float] = Counter()
    for share, num in room.cards.items():
        left[round(share, 4)] += num
    return +left


@pytest.mark.parametrize(
    ("roles", "resources", "size"),
    [
        ({"generator": {"min": 100_000, "max": 100_000, "gpus": 1}}, {"gpus": 100_000, "cpus": 1e5}, 100_000),
        ({"generator": {"engines": "auto", "max": 100_000, "gpus": 1}}, {"gpus": 99_999, "cpus": 1e6}, 99_999),
        ({"generator": {"engines": "auto", "max": 100_000, "gpus": 1e-9}}, {"gpus": 1, "cpus": 1e6}, 100_000),
        ({"generator": {"engines": "auto", "max": 100_000, "cpus": 1e-300}}, {"gpus": 0, "cpus": 1e30}, 100_000),
    ],
)
def test_the_largest_numbers_are_placed_without_counting(roles, resources, size) -> None:
    given = Config.model_validate({**roles, "resources": resources})
    assert sizes(given, ("generator",)) == {"generator": size}
