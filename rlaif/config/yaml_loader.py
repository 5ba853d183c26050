"""What YAML means here: YAML 1.1 without what surprises people, in bounded time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

MERGE_TAG, STR_TAG, BOOL_TAG, INT_TAG, FLOAT_TAG, TIMESTAMP_TAG = (
    f"tag:yaml.org,2002:{name}" for name in ("merge", "str", "bool", "int", "float", "timestamp")
)
MAX_INTEGER_BITS = 1000  #: longer ones are no floating-point numbers, and are not written out
MAX_NUMBER_CHARS = 1100  #: what is longer has more bits, or takes its base to a power that is quadratic work


class StrictLoader(yaml.SafeLoader):
    """The safe loader, with every key of a mapping at most once, where a key that ``<<`` merges in does not count.

    Keys are text as they are written: ``1`` is the name of a resource, not a number. As in YAML 1.2, only ``true`` and
    ``false`` are booleans, and dates and times are text: ``mode: off``, ``12:30`` and a directory named ``2024-01-02``
    are what they look like.
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
            if node.tag in (INT_TAG, FLOAT_TAG) and len(node.value) > MAX_NUMBER_CHARS:
                raise ValueError(f"a number of more than {MAX_NUMBER_CHARS} characters")
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
                raise ValueError(f"a number of more than {MAX_INTEGER_BITS} bits")
            return value
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
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (BOOL_TAG, INT_TAG, FLOAT_TAG, TIMESTAMP_TAG)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver(BOOL_TAG, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
#: Those of YAML 1.1 without its numbers to the base of 60, ``1:30``.
StrictLoader.add_implicit_resolver(
    FLOAT_TAG,
    re.compile(
        r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)
StrictLoader.add_implicit_resolver(
    INT_TAG,
    re.compile("^[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
