"""The small YAML files that people write (lexicons, examples, constitutions), and their mistakes in plain words.

A key that appears twice is refused, because the first of its values would be lost silently.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlaif.errors import ConfigError

MERGE_TAG, STR_TAG, BOOL_TAG, TIMESTAMP_TAG = (
    f"tag:yaml.org,2002:{name}" for name in ("merge", "str", "bool", "timestamp")
)
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


class StrictLoader(yaml.SafeLoader):
    """The safe loader, with every key of a mapping at most once, where a key that ``<<`` merges in does not count.

    Keys are text as they are written: ``1`` is the name of a resource, not a number. As in YAML 1.2, only ``true`` and
    ``false`` are booleans, and a date is text: ``mode: off`` and a directory named ``2024-01-02`` are what they look
    like.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.merged: set[int] = set()  #: ids of the nodes that a ``<<`` names
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what ``<<`` names in its place, weaker than the mapping's own keys."""
        if id(node) not in self._checked:  # afterwards, merged keys precede the mapping's own
            self._checked.add(id(node))
            node.value = [(self._key(key, value), value) for key, value in node.value]
            _refuse_repeated(key for key, _ in node.value)
        super().flatten_mapping(node)

    def _key(self, key: yaml.Node, value: yaml.Node) -> yaml.Node:
        """``key`` as text. What it is an alias of stays as it is."""
        if key.tag == MERGE_TAG:
            self.merged |= {id(value), *map(id, value.value)}
            return key
        if not isinstance(key, yaml.ScalarNode):
            return key  # cannot be hashed, as construct_mapping will say
        if not key.value:
            raise yaml.constructor.ConstructorError(None, None, "a key is empty", key.start_mark)
        return yaml.ScalarNode(STR_TAG, key.value, key.start_mark, key.end_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
            said = f"a value that cannot be read ({error})"  # !!int x, or more digits than Python reads
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from None


def _refuse_repeated(keys: Iterable[yaml.Node]) -> None:
    seen: set[str] = set()
    for key in keys:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key.value} appears twice", key.start_mark)
        seen.add(str(key.value))


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (BOOL_TAG, TIMESTAMP_TAG)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver(BOOL_TAG, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def parse_yaml(text: str, keys: Collection[str] | None = None) -> Any:
    """The contents of a YAML text. Raises yaml.YAMLError, whatever is wrong with it.

    ``keys``: those that a file has at its top level. Any other key there whose value is merged elsewhere by ``<<``, and
    which resembles none of them, only holds what is merged, and is left out.
    """
    loader = StrictLoader(text)
    try:
        node = loader.get_single_node()
        tree: Any = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply, or within itself") from None
    finally:
        loader.dispose()
    if keys is None or not isinstance(node, yaml.MappingNode):
        return tree
    spare = {key.value for key, value in node.value if id(value) in loader.merged} - set(keys)
    return {key: value for key, value in tree.items() if key not in spare or difflib.get_close_matches(key, keys)}


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
    if problem["input"] is None and kind != "missing":
        return "must not be null", "give a value, or leave the key out for its default"
    known = PROBLEMS.get(kind) or PROBLEMS.get(kind.split("_")[0])
    return known or (problem["msg"].removeprefix("Value error, "), None)


def format_value(value: object) -> str:
    """A value as a message quotes it."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."
