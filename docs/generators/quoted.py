"""What the pages quote from the code: departures from the papers, the table of the loops, the plain PPO."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES, DEPARTURES = ("Source:", "Sources:"), ("Departure", "Departs")


def departures(root: Path = ROOT) -> str:
    """Every file that lists how it departs from its sources, with the sources."""
    return "\n\n".join(_section(path.relative_to(root), text) for path, text in _docstrings(root) if _departs(text))


def loops(root: Path = ROOT) -> str:
    """The diagram and the table of the loops of reinforcement, with the notes below them."""
    folder = root / "rlaif/stages/reinforcement"
    text = next(text for path, text in _docstrings(root) if path.is_relative_to(folder) and "unblocked by" in text)
    _, *paragraphs = text.split("\n\n")  # the first one is the module's title
    return "\n\n".join(_figure(part) if "   " in part else part.replace("``", "`") for part in paragraphs)


def _figure(text: str) -> str:
    """As plain text. Spaces after a name make up for its backticks, so that columns stay columns."""
    lines = ("" if line.strip() == "```" else line for line in text.splitlines())
    kept = re.sub(r"``(\w+)``(\S*)", r"\1\2    ", "\n".join(lines).strip("\n"))
    return f"```text\n{kept}\n```"


def plain_ppo(root: Path = ROOT) -> str:
    """The function ``plain_ppo``, wherever it is."""
    for folder in ("rlaif", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            if "def plain_ppo(" in source:
                return f"`{path.relative_to(root)}`:\n\n```python\n{_function(source, 'plain_ppo')}\n```"
    raise LookupError("no file defines plain_ppo; docs/architecture.md quotes it")


def _function(source: str, name: str) -> str | None:
    nodes = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return next(ast.get_source_segment(source, node) for node in nodes if node.name == name)


def _docstrings(root: Path) -> Iterator[tuple[Path, str]]:
    for package in ("rlaif", "actors"):
        for path in sorted((root / package).rglob("*.py")):
            yield path, ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _departs(text: str) -> bool:
    return any(paragraph.startswith(DEPARTURES) for paragraph in text.split("\n\n"))


def _section(path: Path, text: str) -> str:
    paragraphs = text.split("\n\n")
    kept = [_listed(lines) for lines in map(_from_sources, paragraphs) if lines]
    return "\n\n".join([f"### `{path}`", " ".join(paragraphs[0].split()), *kept]).replace("``", "`")


def _from_sources(paragraph: str) -> list[str]:
    """The lines of a paragraph from the one on that names sources or departures; none in other paragraphs."""
    lines = paragraph.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith((*SOURCES, *DEPARTURES))), len(lines))
    return lines[first:]


def _listed(lines: list[str]) -> str:
    """A blank line before the first point, so that Markdown sees a list."""
    return "\n".join(f"\n{line}" if line.startswith("1. ") else line for line in lines)
