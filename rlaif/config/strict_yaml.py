"""The small YAML files that people write (lexicons, examples, constitutions), and their mistakes in plain words.

A key that appears twice is refused, because the first of its values would be lost silently.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlaif.errors import ConfigError

MAX_VALUE_CHARS = 60  #: longest value that a message quotes whole

#: What is wrong and what to do, by pydantic's name of the error, else by the first word of that name.
PROBLEMS = {
    "missing": ("is missing", "add it"),
    "extra_forbidden": ("unknown key", "correct or remove it"),
    "string_too_short": ("must not be empty", "write something"),
    "int": ("must be a whole number", "write one such as 8"),
    "float": ("must be a number", "write one such as 0.5"),
    "finite": ("must be a finite number", "write one such as 0.5"),
    "bool": ("must be true or false", "write one of the two"),
    "string_type": ("must be text", "put it in quotes"),
    "tuple": ("must be a list", "write [a, b]"),
    "list": ("must be a list", "write [a, b]"),
    "dict": ("must be keys and values", "write {name: number}"),
    "model": ("must be keys and values", "indent them below it"),
}
LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


class StrictLoader(yaml.SafeLoader):
    """The safe loader, with every key of a mapping at most once."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key} appears twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def line_of(error: yaml.YAMLError) -> str:
    """``, line N`` of a mistake; empty when its line is not known."""
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def reason_of(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or str(error).splitlines()[0]


def read_yaml(path: Path, name: str) -> Any:
    """The contents of a file. Raises ConfigError, which begins with ``name``, when it cannot be read or is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}{line_of(error)}: not YAML: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None


def describe_mistakes(error: ValidationError, name: str) -> str:
    """The mistakes in the file ``name``, one line each: ``NAME: PLACE: RULE; FIX``, where PLACE is dotted."""
    lines = ((".".join(map(str, problem["loc"])), describe_problem(problem)) for problem in error.errors())
    return "\n".join(f"{name}: {place}: {what}" if place else f"{name}: {what}" for place, what in lines)


def describe_problem(problem: ErrorDetails) -> str:
    """One of pydantic's problems in plain words: ``RULE, not VALUE; FIX``."""
    rule, fix = rule_of(problem)
    value = problem["input"]
    if rule.startswith("must be") and isinstance(value, str | int | float):
        rule += f", not {format_value(value)!r}" if isinstance(value, str) else f", not {format_value(value)}"
    return f"{rule}; {fix}" if fix else rule


def rule_of(problem: ErrorDetails) -> tuple[str, str | None]:
    """(what is wrong, in plain words; what to do about it, None when the first says so)."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in LIMITS:
        words, name = LIMITS[kind]
        return f"must be {words} {context[name]:g}", "change the number"
    if kind == "literal_error":
        return f"must be one of {context['expected']}".replace("'", ""), "choose one of them"
    if kind == "too_short":
        return f"needs at least {context['min_length']}, has {context['actual_length']}", "add some"
    if kind == "too_long":
        return f"may have at most {context['max_length']}, has {context['actual_length']}", "remove some"
    known = PROBLEMS.get(kind) or PROBLEMS.get(kind.split("_")[0])
    return known or (problem["msg"].removeprefix("Value error, "), None)


def format_value(value: object) -> str:
    """A value as a message quotes it."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."
