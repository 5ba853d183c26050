"""Sections of the report, built from a few kinds of blocks; ``section.html.jinja`` has the markup of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


class Block:
    """``kind`` chooses the markup."""

    kind: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class Heading(Block):
    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True, kw_only=True)
class Paragraph(Block):
    """``soft``: small and grey, for remarks."""

    kind: ClassVar[str] = "paragraph"
    text: str
    soft: bool = False


@dataclass(frozen=True, kw_only=True)
class Legend(Block):
    """The colours of a figure and what they mean, by name."""

    kind: ClassVar[str] = "legend"
    colours: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Figures(Block):
    """SVG elements as ``plots`` makes them, side by side where the page is wide enough."""

    kind: ClassVar[str] = "figures"
    svgs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """``note``: in small print below the text."""

    text: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Table(Block):
    """The first column holds names, the others right-aligned numbers; an empty ``header`` is left out."""

    kind: ClassVar[str] = "table"
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str | Cell]]


@dataclass(frozen=True, kw_only=True)
class ReportSection:
    """``link`` is its name in the page's navigation."""

    title: str
    link: str
    blocks: Sequence[Block]
