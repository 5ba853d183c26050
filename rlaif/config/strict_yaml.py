"""The small YAML files that people write (lexicons, examples, constitutions), and their mistakes in plain words.

A key that appears twice is refused, because the first of its values would be lost silently. Small files are read in
bounded time and memory, and what is said about them is bounded, too: aliases make a few lines stand for any number of
values.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlaif.config.yaml_loader import StrictLoader
from rlaif.errors import ConfigError, format_value

MAX_YAML_CHARS = 2_000_000  #: a quarter of a minute of reading
MAX_YAML_VALUES = 500_000  #: with each alias counted as what it stands for
MAX_MISTAKES = 40  #: lines about the mistakes in one file
MAX_LISTED = 10


#: What is wrong and what to do, by pydantic's name of the error, else by the first word of that name.
PROBLEMS = {
    "missing": ("is missing", "add it"),
    "extra_forbidden": ("unknown key", "correct or remove it"),
    "string_too_short": ("must not be empty", "write something"),
    "int": ("must be a whole number", "write one such as 8"),
    "float": ("must be a number", "write one such as 0.5"),
    "finite": ("must be a finite number", "write one such as 0.5"),
    "bool": ("must be true or false", "write one of the two"),
    "string_unicode": ("must be text in UTF-8", "rename the file or directory, or remove what is no character"),
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


def parse_yaml(text: str, keys: Collection[str] | None = None) -> Any:
    """The contents of a YAML text. Raises yaml.YAMLError, whatever is wrong with it.

    ``keys``: those that a file has at its top level. Any other key there whose value is merged elsewhere by ``<<``, and
    which resembles none of them, only holds what is merged, and is left out.
    """
    if len(text) > MAX_YAML_CHARS:
        raise yaml.YAMLError(f"{len(text):,} characters, of which {MAX_YAML_CHARS:,} may be")
    loader = StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and _num_values(node, {}) > MAX_YAML_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_YAML_VALUES:,} values")
        tree: Any = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply, or within itself") from None
    finally:
        loader.dispose()
    if keys is None or not isinstance(node, yaml.MappingNode):
        return tree
    spare = {key.value for key, value in node.value if id(value) in loader.merged} - set(keys)
    return {key: value for key, value in tree.items() if key not in spare or difflib.get_close_matches(key, keys)}


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values ``node`` stands for. Raises yaml.YAMLError when it holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if known.get(id(node)) == 0:
        raise yaml.constructor.ConstructorError(None, None, "found unconstructable recursive node", node.start_mark)
    if id(node) not in known:
        known[id(node)] = 0  # until it is known
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_num_values(part, known) for part in parts)
    return known[id(node)]


def line_of(error: yaml.YAMLError) -> str:
    """``, line N`` of a mistake; empty when its line is not known."""
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def reason_of(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or str(error).splitlines()[0]


def read_yaml(path: Path, name: str, keys: Collection[str] | None = None) -> Any:
    """The contents of a file; ``keys`` as for ``parse_yaml``.

    Raises ConfigError, which begins with ``name``, when it cannot be read or is not YAML.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), keys)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}{line_of(error)}: not YAML: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:  # of a name that no file can have, too
        raise ConfigError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from None


def describe_mistakes(error: ValidationError, name: str) -> str:
    """The mistakes in the file ``name``, one line each: ``NAME: PLACE: RULE; FIX``, where PLACE is dotted."""
    lines = ((place_of(problem), describe_problem(problem)) for problem in error.errors())
    return "\n".join(first_of([f"{name}: {place}: {what}" if place else f"{name}: {what}" for place, what in lines]))


def place_of(problem: ErrorDetails) -> str:
    """Where in a file a problem is, dotted."""
    return ".".join(format_value(str(part)) for part in problem["loc"])


def first_of(mistakes: Sequence[str]) -> list[str]:
    """``mistakes``, of which so many are left out that people still read them."""
    left_out = len(mistakes) - MAX_MISTAKES
    return [*mistakes[:MAX_MISTAKES], f"... and {left_out:,} more mistakes"] if left_out > 0 else list(mistakes)


def listed(names: Sequence[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    few = ", ".join(map(format_value, names[:MAX_LISTED]))
    return few if len(names) <= MAX_LISTED else f"{few} and {len(names) - MAX_LISTED:,} more"


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
    if problem["input"] is None and kind != "missing":
        return "must not be null", "give a value, or leave the key out for its default"
    known = PROBLEMS.get(kind) or PROBLEMS.get(kind.split("_")[0])
    return known or (problem["msg"].removeprefix("Value error, "), None)
