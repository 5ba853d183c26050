"""Whether a command that a page shows would be understood: parsed as the shell, typer and the configuration do."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from actors.cli.__main__ import app
from rlaif.config.files import load_config
from rlaif.errors import ConfigError
from tests.unit.docs.pages import ROOT

OTHERS = {"pip", "helm", "docker", "kubectl", "export", "uv", "ray"}  #: not ours; the files that they name are checked
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*$")
OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)*=")
#: Folders of the project; not what is made in a checkout, such as runs/ and site/.
TOP = ("actors/", "benchmarks/", "cluster/", "configs/", "docs/", "requirements/", "rlaif/", "tests/")
CLI: Any = typer.main.get_command(app)
UsageError: Any = typer.BadParameter.__bases__[0]  #: of the click that typer brings along


def problem(line: str, *, whole: bool = True) -> str | None:
    """What is wrong with a command, or None. ``whole`` is False in running text, which may name a command only."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        return f"the shell does not understand it: {error}"
    return _missing_file(words) or _command_problem(words, whole)


def _command_problem(words: list[str], whole: bool) -> str | None:
    match words:
        case ["rlaif" | ".venv/bin/rlaif", *rest]:
            return _cli_problem(rest, whole)
        case ["python" | ".venv/bin/python", "-m", "actors.cli", *rest]:
            return _cli_problem(rest, whole)
        case ["python" | ".venv/bin/python", "-m", module, *rest]:
            return _module_problem(module, rest)
        case ["make", *targets]:
            return next((f"make has no target {name}" for name in targets if name not in _make_targets()), None)
        case ["pip" | "uv", *rest]:
            return next((f"there is no extra {name}" for name in _extras(rest) if name not in _known_extras()), None)
        case [".venv/bin/pre-commit", *_]:
            return None
        case [name, *_] if name in OTHERS:
            return None
    return f"unknown command: {words[0] if words else 'none'}"


# ------------------------------------------------------------------------------------------------ our commands
def _cli_problem(words: list[str], whole: bool) -> str | None:
    command = CLI
    while isinstance(command, TyperGroup) and words:
        found = command.get_command(None, words[0])
        if found is None:
            return f"rlaif has no command {words[0]}"
        command, words = found, words[1:]
    if not words and not whole:
        return None
    try:
        parsed = command.make_context(command.name, [_filled(word) for word in words]).params
    except UsageError as error:
        return error.format_message()
    return _config_problem(parsed)


def _filled(word: str) -> str:
    """A placeholder that must be a number, as one."""
    return "2" if word == "N" else word


def _config_problem(parsed: dict[str, Any]) -> str | None:
    """Whether the configuration exists and takes the overrides."""
    named = str(parsed.get("config") or "CONFIG")
    path = shipped("quickstart") if PLACEHOLDER.match(named) else shipped(named)
    if path is None:
        return f"there is no configuration {named}"
    overrides = [word for word in parsed.get("overrides") or [] if not PLACEHOLDER.match(word)]
    try:
        load_config(path, overrides)
    except ConfigError as error:
        return str(error)
    return None


def shipped(name: str) -> Path | None:
    """A configuration named by its path, or a shipped one by its name."""
    if Path(name).suffix:
        path = ROOT / name
        return path if path.is_file() else None
    found = [path for folder in ("configs", "rlaif") for path in (ROOT / folder).rglob(f"{name}.yaml")]
    return next((path for path in found if "constitution" not in path.parts and "examples" not in path.parts), None)


# ------------------------------------------------------------------------------------------------ what they name
def _module_problem(module: str, words: list[str]) -> str | None:
    if module == "pytest" or PLACEHOLDER.match(module.rpartition(".")[2]):
        return None
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        return f"there is no module {module}"
    source = path.read_text(encoding="utf-8") + (ROOT / "benchmarks" / "machine.py").read_text(encoding="utf-8")
    options = [word for word in words if word.startswith("--")]
    return next((f"{module} has no option {word}" for word in options if f'"{word}"' not in source), None)


def _make_targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony
    return set(phony[1].split())


def _known_extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def _extras(words: list[str]) -> list[str]:
    named = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--extra"]
    return named + [name for word in words if word.startswith(".[") for name in word[2:-1].split(",")]


def _missing_file(words: list[str]) -> str | None:
    """A file of the tree that a command names, by itself or as an override's value."""
    values = [word.partition("=")[2] if OVERRIDE.match(word) else word for word in words]
    named = [value for value in values if value.startswith(TOP)]
    return next((f"there is no {value}" for value in named if not (ROOT / value).exists()), None)
