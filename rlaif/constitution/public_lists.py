"""Constitutions as plain lists: statements in a table (Collective Constitutional AI, Polis), Markdown, text.

- A table (``.csv``, ``.tsv``) has a column of statements, under one of the names in ``STATEMENT_COLUMNS``, or only one
  column. Votes and dates are left out, and so are statements that moderation rejected (``moderated`` -1).
- Markdown has a list; each item is a principle. An item that ends in a colon, with items below it, is a heading.
- Text has a list as in Markdown, or paragraphs between blank lines, or a principle on each line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlaif.constitution.public_texts import (
    PrincipleTree,
    clean_text,
    comparison_of,
    id_of_statement,
    principle,
    refuse_transcript,
)
from rlaif.errors import ConfigError

#: Of the column that holds the statements; upper and lower case, and a plural, do not matter.
STATEMENT_COLUMNS = ("statement", "comment-body", "comment_body", "comment", "principle", "criterion", "text")
_DELIMITERS = ",;\t|"
ITEM = re.compile(r"^(?P<indent>\s*)(?:[-*+•]|\d+[.)])\s+(?:\[[ xX]\]\s+)?(?P<text>\S.*)$")
EMPHASIS = re.compile(r"\*\*|__|`")
LINK = re.compile(r"\[([^\[\]]+)\]\([^)\n]{0,500}\)")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
FENCED = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)

PlacedText = tuple[int, str]  #: (line or row, text)


def table_principles(file: Path, text: str) -> Iterator[PrincipleTree]:
    """The statements of a table. Raises ConfigError when no column has them."""
    yield from _principles(file, "row", _table_statements(file, text))


def markdown_principles(file: Path, text: str) -> Iterator[PrincipleTree]:
    """The items of a Markdown file's lists. Raises ConfigError when there is no list."""
    items = list(_items(FENCED.sub("", FRONT_MATTER.sub("", text))))
    if not items:
        raise ConfigError(f"{file}: has no list; write each principle as an item: - Choose the answer that ...")
    yield from _principles(file, "item", enumerate((item for _, item in items), start=1))


def text_principles(file: Path, text: str) -> Iterator[PrincipleTree]:
    """The items, paragraphs or lines of a text. Raises ConfigError for a transcript."""
    clean_text(file, "the text", text)
    items = [item for _, item in _items(text)]
    paragraphs = [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    statements = items or (paragraphs if len(paragraphs) > 1 else lines)
    yield from _principles(file, "item", enumerate(statements, start=1))


def _principles(file: Path, unit: str, statements: Iterator[PlacedText] | enumerate[str]) -> Iterator[PrincipleTree]:
    placed = list(statements)
    refuse_transcript(file, (statement for _, statement in placed))
    for number, (place, statement) in enumerate(placed, start=1):
        comparison = comparison_of(file, f"{unit} {place}", statement)
        yield principle(id_of_statement(statement, number), f"{file.name}: {unit} {place}", comparison=comparison)


# ------------------------------------------------------------------------------------------------------- tables
def _table_statements(file: Path, text: str) -> Iterator[PlacedText]:
    header, rows = _rows(file, text)
    column = _statement_column(file, header)
    moderated = _only(file, header, "moderated") if "moderated" in header else None
    for number, row in rows:
        rejected = moderated is not None and len(row) > moderated and row[moderated].strip() == "-1"
        if len(row) > column and row[column].strip() and not rejected:
            yield number, row[column].strip()


def _rows(file: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns in lower case, and the rows with their numbers; blank ones are passed over."""
    first = text.partition("\n")[0].strip().lower()
    declared = first[4:5] if first.startswith("sep=") and first[4:5] in _DELIMITERS and len(first) == 5 else ""
    body = text.partition("\n")[2] if declared else text
    delimiter = declared or max(_DELIMITERS, key=body.partition("\n")[0].count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(body, newline=""), delimiter=delimiter) if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise ConfigError(f"{file}: not a table that can be read: {error}") from None
    if not rows:
        raise ConfigError(f"{file}: is empty")
    return [name.strip().lower() for name in rows[0]], list(enumerate(rows[1:], start=1))


def _statement_column(file: Path, header: Sequence[str]) -> int:
    singular = [name.removesuffix("s") for name in header]
    for name in STATEMENT_COLUMNS:
        if name in singular:
            return _only(file, singular, name)
    if len(header) == 1:
        raise ConfigError(f"{file}: the first row must name the column: statement")
    raise ConfigError(f"{file}: no column of statements among {', '.join(header)}; call it statement")


def _only(file: Path, header: Sequence[str], name: str) -> int:
    """Where the column ``name`` is. Raises ConfigError when it is there twice: the second would be lost silently."""
    if header.count(name) > 1:
        raise ConfigError(f"{file}: column {name} is there {header.count(name)} times; keep one, or rename them")
    return header.index(name)


# ------------------------------------------------------------------------------------------------------- lists
def _items(text: str) -> Iterator[PlacedText]:
    """(indent, text) of each list item, with the lines that continue it; without headings and emphasis."""
    items: list[list[str]] = []
    indents: list[int] = []
    open_item = False
    for line in text.splitlines():
        if match := ITEM.match(line):
            items.append([match["text"]])
            indents.append(len(match["indent"].expandtabs(4)))
            open_item = True
        elif open_item and line.strip() and not line.startswith("#"):
            items[-1].append(line)
        else:
            open_item = False
    for number, (indent, parts) in enumerate(zip(indents, items, strict=True)):
        whole = LINK.sub(r"\1", EMPHASIS.sub("", "\n".join(parts))).strip()
        has_children = indents[number + 1 : number + 2] > [indent]
        if not (whole.endswith(":") and has_children):
            yield indent, whole
