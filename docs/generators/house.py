"""The house as a picture: the floors of ``rlaif/`` and ``actors/``, read from the import contracts.

Each `layers` contract in ``pyproject.toml`` is one wing. ``make lint`` enforces these contracts, so the picture shows
what is enforced and cannot go stale.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH, ROW, GAP = 860, 36, 8


@dataclass(frozen=True, kw_only=True)
class Wing:
    """One package and its floors, top floor first; rooms on one floor may not import each other."""

    package: str
    floors: tuple[tuple[str, ...], ...]

    @property
    def rooms(self) -> tuple[str, ...]:
        return tuple(room for floor in self.floors for room in floor)


def wings(pyproject: str) -> list[Wing]:
    """The wings in the text of a ``pyproject.toml``, those that stand on others first."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    layers = [contract for contract in contracts if contract["type"] == "layers"]
    found = [
        Wing(package=container, floors=tuple(map(_floor, contract["layers"])))
        for contract in layers
        for container in contract["containers"]
    ]
    return sorted(found, key=lambda wing: wing.package)  # actors imports rlaif, never the reverse


def _floor(layer: str) -> tuple[str, ...]:
    """``a | b`` and ``a : b`` are rooms of one floor; parentheses mark an optional one."""
    return tuple(room.strip(" ()") for room in re.split(r"[|:]", layer))


def purpose(package: str, room: str, root: Path = ROOT) -> str:
    """The first sentence of a room's docstring."""
    folder = root / package / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", first)[0]


def picture(houses: list[Wing]) -> str:
    """The floors as one SVG without outside resources; it takes its colours from the page."""
    parts, y = [], 0
    for wing in houses:
        parts.append(f'<text x="0" y="{y + 16}" font-weight="bold">{escape(wing.package)}/</text>')
        y += 24
        for floor in wing.floors:
            parts += _row(floor, y)
            y += ROW + GAP
        y += GAP
    return "\n".join(
        [
            f'<svg class="house" viewBox="0 0 {WIDTH} {y}" width="100%" role="img" '
            'xmlns="http://www.w3.org/2000/svg" font-family="monospace" font-size="13" fill="currentColor">',
            "<title>Each room may import from the floors below it, never from its own floor or from above</title>",
            *parts,
            "</svg>",
        ]
    )


def _row(floor: tuple[str, ...], y: int) -> list[str]:
    width = (WIDTH - 2 - GAP * (len(floor) - 1)) / len(floor)
    parts = []
    for i, room in enumerate(floor):
        x = 1 + i * (width + GAP)
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" rx="4" fill="none" stroke="currentColor"/>'
        )
        parts.append(
            f'<text x="{x + width / 2:.1f}" y="{y + ROW / 2 + 5:.0f}" text-anchor="middle">{escape(room)}</text>'
        )
    return parts


def table(houses: list[Wing], root: Path = ROOT) -> str:
    """The same as a Markdown table, with what each room holds."""
    lines = ["| room | what it holds |", "|---|---|"]
    for wing in houses:
        for room in wing.rooms:
            lines.append(f"| `{wing.package}/{room}` | {_plain(purpose(wing.package, room, root))} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def house(root: Path = ROOT) -> str:
    """The picture and its table, for ``docs/architecture.md``."""
    houses = wings((root / "pyproject.toml").read_text(encoding="utf-8"))
    return f"{picture(houses)}\n\n{table(houses, root)}"
