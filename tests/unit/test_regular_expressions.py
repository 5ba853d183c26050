"""Every regular expression of the packages takes time linear in the text, whatever the text is.

Each is used as the code uses it (``search``, ``fullmatch``...) on texts made to mislead it: what it looks for, and what
it passes over, many times in a row. Only growth is compared, with a wide margin: quadratic work would grow sixteenfold.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.growth import FACTOR, check_linear

REPOSITORY = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for root in ("rlaif", "actors")
    for path in (REPOSITORY / root).rglob("*.py")
    if path.stem not in ("__init__", "__main__")
)
METHODS = ("match", "fullmatch", "search", "split", "sub", "findall", "finditer")
PUMPS = (
    *(" ", "\n", "\n ", "\t", "a", "A", "0", "é", ".", ",", ":", ";", "?", "!", "-", "_", "*", "#", "=", "@", "|"),
    *('"', "“", "'", "`", "(", "[", "{", "<", ")", "]", "}", ">", "\\", "\\n", "[a](", "a.", "a ", "0 ", "/"),
)
PASSED_ON = {"rlaif.ids": "fullmatch"}  #: how a module uses patterns that it passes to a function
SIZE = 2_000  #: characters: quadratic work on them takes some 10 ms
Use = tuple[re.Pattern[str], str]


def uses_in(module: str) -> Iterator[Use]:
    """(pattern, method) of each use in a module; patterns whose use cannot be seen are searched for."""
    names = vars(importlib.import_module(module))
    tree = ast.parse((REPOSITORY / f"{module.replace('.', '/')}.py").read_text())
    seen = set()
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in METHODS):
            continue
        owner = call.func.value
        if isinstance(owner, ast.Name) and isinstance(pattern := names.get(owner.id), re.Pattern):
            yield pattern, call.func.attr
            seen.add(pattern)
        elif isinstance(owner, ast.Name) and owner.id == "re" and isinstance(call.args[0], ast.Constant):
            yield re.compile(call.args[0].value), call.func.attr
    for value in names.values():
        method = PASSED_ON.get(module, "search")
        yield from ((pattern, method) for pattern in patterns_in(value) if pattern not in seen)


def patterns_in(value: Any) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple):
        yield from itertools.chain.from_iterable(map(patterns_in, value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from itertools.chain.from_iterable(patterns_in(getattr(value, each.name)) for each in fields(value))


def words_of(pattern: re.Pattern[str]) -> list[str]:
    """What a pattern spells out, in short runs."""
    plain = re.sub(r"\\(.)", lambda escaped: "" if escaped[1] in "swdbSWDBAZ" else escaped[1], pattern.pattern)
    words = [word for word in re.findall(r"[\w<>/#`：:\[\]|]{1,20}", plain) if not word.isdecimal()]
    return ["", *dict.fromkeys(words)][:9]


def texts(pattern: re.Pattern[str], size: int) -> Iterator[str]:
    for word, pump, end in itertools.product(words_of(pattern), PUMPS, ("x", "\x01")):
        yield word + pump * (size // len(pump)) + end
        yield (word + pump) * (size // len(word + pump)) + end
        yield (word + pump * 40) * (size // len(word + pump * 40)) + end


def check(pattern: re.Pattern[str], method: str) -> None:
    def work(text: str) -> None:
        found = getattr(pattern, method)(*(("", text) if method == "sub" else (text,)))
        for _ in found if method == "finditer" else ():
            pass

    for small, large in zip(texts(pattern, SIZE), texts(pattern, FACTOR * SIZE), strict=True):
        check_linear(work, small, large)


USES = sorted({(pattern.pattern, pattern.flags, method) for module in MODULES for pattern, method in uses_in(module)})


@pytest.mark.parametrize(("source", "flags", "method"), USES)
def test_a_pattern_is_linear(source: str, flags: int, method: str) -> None:
    check(re.compile(source, flags), method)


@pytest.mark.parametrize(
    ("source", "method"),
    [
        (r"\n\s*(?:Human|Assistant)\s*:", "sub"),
        (r"\?\W*$", "search"),
        (r"\[([^\]]+)\]\([^)]*\)", "sub"),
        (r".*(?:\\n)+\s*Human:.*", "fullmatch"),
    ],
)
def test_a_quadratic_pattern_is_seen(source: str, method: str) -> None:
    with pytest.raises(AssertionError):
        check(re.compile(source, re.DOTALL), method)
