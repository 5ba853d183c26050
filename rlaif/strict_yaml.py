"""YAML that refuses a key written twice: the first would be lost without a word."""

from __future__ import annotations

from typing import Any

import yaml


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
