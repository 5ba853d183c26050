"""Every section and every field says what it is, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rlaif.config.keys import section_type
from rlaif.config.schema import Config
from rlaif.config.section import Section


def fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        yield prefix + name, field
        inner = section_type(section, name)
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}.")


def sections() -> set[type[Section]]:
    inner = {field.annotation for _, field in fields(Config)}
    return {Config, *(type_ for type_ in inner if isinstance(type_, type) and issubclass(type_, Section))}


def test_every_field_has_one_line_of_description() -> None:
    described = dict(fields(Config))
    assert len(described) > 200
    assert [key for key, field in described.items() if not (field.description or "").strip()] == []
    assert [key for key, field in described.items() if "\n" in field.description or len(field.description) > 100] == []


def test_every_section_says_what_it_is() -> None:
    assert [section.__name__ for section in sections() if not section.__dict__.get("__doc__")] == []


def test_what_null_means_is_said_where_a_field_may_be_null() -> None:
    silent = [
        key
        for key, field in fields(Config)
        if type(None) in get_args(field.annotation) and "null" not in field.description
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("role", "name"), [("generator", "max"), ("policy_trainer", "ranks"), ("resources", "gpus"), ("scorer", "threads")]
)
def test_what_a_machine_has_many_of_ends_at_a_hundred_thousand(role, name) -> None:
    Config.model_validate({role: {name: 100_000}})
    with pytest.raises(ValidationError, match="less than or equal to 100000"):
        Config.model_validate({role: {name: 100_001}})
