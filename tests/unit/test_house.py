"""The shape of the house: few modules in a folder, short modules and functions, every public name defined once.

The floors are import-linter contracts (``make lint``); what they cannot say is said here.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MODULES = sorted(path for root in ("rlaif", "actors") for path in (REPOSITORY / root).rglob("*.py"))
NAMES = [str(path.relative_to(REPOSITORY)) for path in MODULES]

MAX_MODULES = {"rlaif": 8, "actors": 3}  #: directly in the folder
MAX_LINES = 400
MAX_LINES_OF = {"actors/pool": 250, "actors/trainer": 250, "rlaif/training": 250}
MAX_METHODS_OF = {"actors/pool": 20, "actors/trainer": 20, "rlaif/training": 20}
MAX_FUNCTION_LINES = 50


def public_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, constants and type variables that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def names_defined_twice(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    places = defaultdict(list)
    for module, tree in trees.items():
        for name in set(public_names(tree)):
            places[name].append(module)
    return {name: modules for name, modules in places.items() if len(modules) > 1}


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in zip(NAMES, MODULES, strict=True)}


@pytest.mark.parametrize("folder", MAX_MODULES)
def test_few_modules_lie_outside_the_rooms(folder: str) -> None:
    modules = [path.name for path in (REPOSITORY / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES[folder], modules


def test_every_public_name_is_defined_once(trees: dict[str, ast.Module]) -> None:
    assert names_defined_twice(trees) == {}


def test_a_name_in_two_modules_is_seen() -> None:
    trees = {
        "a": ast.parse("class Row: ...\n_x = 1"),
        "b": ast.parse("Row: int = 1\n_x = 2"),
        "c": ast.parse("row = 1"),
    }
    assert names_defined_twice(trees) == {"Row": ["a", "b"]}


@pytest.mark.parametrize("module", NAMES)
def test_modules_are_short_and_say_what_they_are(module: str, trees: dict[str, ast.Module]) -> None:
    limit = MAX_LINES_OF.get(str(Path(module).parent), MAX_LINES)
    assert len((REPOSITORY / module).read_text().splitlines()) <= limit
    assert ast.get_docstring(trees[module]), "has no docstring"


@pytest.mark.parametrize("module", NAMES)
def test_functions_and_classes_fit_in_the_eye(module: str, trees: dict[str, ast.Module]) -> None:
    most_methods = MAX_METHODS_OF.get(str(Path(module).parent))
    for node in ast.walk(trees[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name
        if isinstance(node, ast.ClassDef) and most_methods:
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= most_methods, node.name
