"""The small YAML files that people write (lexicons, examples, constitutions), and what is wrong in plain words.

A key written twice is refused: the first would be lost without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rlaif.errors import ConfigError


class StrictLoader(yaml.SafeLoader):
    """The safe loader, with every key of a mapping at most once."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if str(key) in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key} stands twice", key_node.start_mark)
        seen.add(str(key))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def where(error: yaml.YAMLError) -> str:
    """``, line N`` of a mistake, or nothing when it has no place."""
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def why(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or str(error).splitlines()[0]


def read_yaml(path: Path, named: str) -> Any:
    """What a file holds. Raises ConfigError that begins with ``named`` when it cannot be read or is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{named}{where(error)}: not YAML: {why(error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{named}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{named}: cannot be read: {error.strerror}") from None


def mistakes(error: ValidationError, named: str) -> str:
    """One line for each mistake of a file, ``NAMED: PLACE: WHAT``; the places are dotted."""
    lines = ((".".join(map(str, problem["loc"])), told(problem)) for problem in error.errors())
    return "\n".join(f"{named}: {place}: {what}" if place else f"{named}: {what}" for place, what in lines)


def told(problem: Any) -> str:
    """One of pydantic's problems in plain words."""
    kind, context = problem["type"], problem.get("ctx", {})
    plain = {
        "missing": "is missing",
        "extra_forbidden": "unknown key; correct or remove it",
        "string_type": f"must be text, not {problem['input']!r}; put it in quotes",
        "tuple_type": "must be a list",
        "list_type": "must be a list",
        "model_type": "must be keys and values",
        "string_too_short": "must not be empty",
        "literal_error": f"must be one of {context.get('expected')}, not {problem['input']!r}",
        "too_short": f"needs at least {context.get('min_length')}, has {context.get('actual_length')}",
        "too_long": f"may have at most {context.get('max_length')}, has {context.get('actual_length')}",
    }
    return plain.get(kind, problem["msg"].removeprefix("Value error, "))
