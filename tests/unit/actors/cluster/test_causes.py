"""Errors of other processes in words: a line for a row, the whole message for a person."""

from __future__ import annotations

from ray.exceptions import ObjectLostError, RayTaskError

from actors.cluster.causes import cause_of, death_of, describe_cause
from rlaif.errors import ModelError, describe_error

CAUSE = ModelError("model: no config.json\nmodel: no weights")
WRAPPED = RayTaskError("open", "Traceback ...", CAUSE)


def test_one_line_is_the_type_and_the_first_line() -> None:
    assert describe_error(CAUSE) == "ModelError: model: no config.json"
    assert describe_error(ValueError()) == "ValueError"


def test_what_was_raised_elsewhere_is_described_without_the_wrapping() -> None:
    assert cause_of(WRAPPED) is CAUSE and cause_of(CAUSE) is CAUSE
    assert death_of(WRAPPED) == "ModelError: model: no config.json"
    assert describe_cause(WRAPPED) == "ModelError: model: no config.json\nmodel: no weights"
    assert describe_cause(CAUSE) == describe_cause(WRAPPED)


def test_what_ray_knows_of_a_death_is_one_line() -> None:
    lost = ObjectLostError("00ff", "127.0.0.1:1", "")
    assert "\n" not in describe_cause(lost) and describe_cause(lost) == death_of(lost)
