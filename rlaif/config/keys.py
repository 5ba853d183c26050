"""The keys that a configuration has: sections, fields, and what a misspelt key probably means."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from rlaif.config.schema import Config
from rlaif.config.section import Section
from rlaif.records import SuiteName

#: Suite -> key of its source.
SUITE_KEYS: Mapping[SuiteName, str] = {name: f"evaluation.suites.{name}" for name in get_args(SuiteName)}
#: Keys whose values name where rows come from, and models.
SOURCE_KEYS = (
    "data.red_team",
    "data.helpful",
    "data.helpful_pairs",
    "data.votes",
    "evaluation.red_team",
    "evaluation.helpful",
    *SUITE_KEYS.values(),
)
SCORED_KEY, POLICY_KEY = "preference_model.base_model", "supervision.base_model"
MODEL_KEYS = ("generator.model", "labeller.model", POLICY_KEY, SCORED_KEY)


def field_type(key: str) -> Any:
    """The type of the field that a dotted key names; None when there is no such field."""
    *sections, name = key.split(".")
    section: type[Section] | None = Config
    for part in sections:
        section = section and section_type(section, part)
    field = section.model_fields.get(name) if section else None
    return field.annotation if field else None


def section_type(section: type[Section], name: str) -> type[Section] | None:
    """The section that ``section`` has under ``name``, if it has one; the field may allow other values, too."""
    field = section.model_fields.get(name)
    kinds = alternatives(field.annotation) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types that a type allows, one by one."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def known_keys(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key, sections included."""
    for name in section.model_fields:
        yield prefix + name
        inner = section_type(section, name)
        if inner is not None:
            yield from known_keys(inner, f"{prefix}{name}.")


def nearest_key(key: str) -> str | None:
    """The known key that was probably meant: misspelt, from another section, or similar as a whole."""
    known = list(known_keys())
    section, _, name = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    elsewhere = [k for k in known if k.rpartition(".")[2] == name]
    for near in difflib.get_close_matches(name, siblings, n=1, cutoff=0.7):
        return siblings[near]
    whole = difflib.get_close_matches(key, elsewhere or known, n=1, cutoff=0.0 if elsewhere else 0.6)
    return whole[0] if whole else None
