"""The pages of the documentation, cut into what can be checked. Knows as much Markdown as they use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "cluster/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^ *```(\w*)\s*$")  #: indented below a list, too
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A span, link, block or line of a block, and where it is."""

    file: str
    line: int
    text: str
    language: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place} {self.text.splitlines()[0][:70]}"


def blocks(name: str, markdown: str) -> Iterator[Piece]:
    """Fenced blocks, at the line of their first line."""
    opened: tuple[int, str] | None = None
    kept: list[str] = []
    for number, line in enumerate(markdown.splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, kept = (number + 1, fence[1]), []
        elif opened is not None and fence:
            yield Piece(file=name, line=opened[0], text=dedent("\n".join(kept)), language=opened[1])
            opened = None
        elif opened is not None:
            kept.append(line)
    if opened is not None:
        raise ValueError(f"{name}:{opened[0]}: this block is never closed")


def prose(markdown: str) -> Iterator[tuple[int, str]]:
    """Numbered lines outside of fenced blocks."""
    fenced = False
    for number, line in enumerate(markdown.splitlines(), start=1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def spans(name: str, markdown: str) -> Iterator[Piece]:
    for number, line in prose(markdown):
        yield from (Piece(file=name, line=number, text=match) for match in SPAN.findall(line))


def links(name: str, markdown: str) -> Iterator[Piece]:
    for number, line in prose(markdown):
        yield from (Piece(file=name, line=number, text=match) for match in LINK.findall(SPAN.sub("", line)))


def commands(name: str, markdown: str) -> Iterator[Piece]:
    """Each line of the blocks without a language: they hold what is typed into a shell."""
    for block in blocks(name, markdown):
        if not block.language:
            for offset, line in enumerate(block.text.splitlines()):
                if line.strip() and not line.lstrip().startswith("#"):
                    yield Piece(file=name, line=block.line + offset, text=line.strip())


def anchors(markdown: str) -> set[str]:
    """Anchors of the headings, as GitHub and the site make them."""
    return {_slug(line.lstrip("#").strip()) for _, line in prose(markdown) if line.startswith("#")}


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def pieces(cut) -> list[Piece]:
    """``cut`` (``spans``, ``links``...) of every page."""
    return [
        piece for page in PAGES for piece in cut(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))
    ]
