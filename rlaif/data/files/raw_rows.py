"""What a format yields: the rows of one file as they lie in it. Shapes and names are not known here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_REASON_CHARS = 500  #: of what is said about a row: names of columns and keys may have any length


class Unusable(ValueError):
    """What cannot be used of a file, in so many words as people read."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= MAX_REASON_CHARS else f"{message[: MAX_REASON_CHARS - 3]}...")


class Unreadable(Unusable):
    """A file, a row or a cell that cannot be read; the message says why, and whoever catches it names the file."""


class RawRow(NamedTuple):
    """A row, or why there is none in its place; then ``fields`` is empty."""

    number: int  #: from 1
    fields: Mapping[str, Any]
    mistake: str | None = None


def too_long(max_chars: int) -> str:
    """Why a row of more than ``max_chars`` characters is not read."""
    return f"the row has more than {max_chars:,} characters (data.limits.max_chars)"


def bad_row(number: int, mistake: str) -> RawRow:
    return RawRow(number, {}, mistake)
