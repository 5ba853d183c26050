"""Rows of JSON: one object a line, or an array of objects. Both stream."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from rlaif.data.files.raw_rows import RawRow, Unreadable, bad_row
from rlaif.data.files.streams import is_valid, open_text

_CHUNK_CHARS = 2**20
_BLANK = "\ufeff \t\r\n\f\v"  #: a byte order mark too: files are joined
_ARRAY_START = re.compile(r"\[\s*(\{|\]|$)")
_NOT_UTF8 = "the row is not UTF-8 text"
_PRETTY = "the file holds JSON objects spread over lines; write each on one line (`jq -c .`), or all as one array"


class _Decoder:
    """JSON as these files use it. Remembers a key that the last value gave twice: of those, the last would win."""

    def __init__(self) -> None:
        self.repeated: str | None = None
        self._json = json.JSONDecoder(object_pairs_hook=self._object, parse_int=_number)

    def decode(self, text: str) -> Any:
        """Raises ValueError, or RecursionError."""
        self.repeated = None
        return self._json.decode(text)

    def decode_at(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins at ``start``, and where it ends. Raises ValueError, or RecursionError."""
        self.repeated = None
        return self._json.raw_decode(text, start)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            self.repeated = next(name for name in names if names.count(name) > 1)
        return value

    def row(self, number: int, value: Any) -> RawRow:
        """The row that the last value is."""
        if not isinstance(value, dict):
            return bad_row(number, "the row is not a JSON object")
        if self.repeated is not None:
            return bad_row(number, f"field `{self.repeated}` is given twice")
        return RawRow(number, value)


def _number(digits: str) -> int | float:
    """A whole number. Python refuses to convert thousands of digits, and a row may hold them where nobody looks."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def json_line_rows(file: str) -> Iterator[RawRow]:
    """One object a line; numbers are line numbers, and blank lines count, so that an editor finds the row."""
    if (layout := layout_of(file)) == "array":
        raise Unreadable("the file holds one JSON array, not an object per line; name it .json")
    if layout == "pretty":
        raise Unreadable(_PRETTY)
    yield from _lines(file)


def json_rows(file: str) -> Iterator[RawRow]:
    """An array of objects, or one object a line, whichever the file holds."""
    if (layout := layout_of(file)) == "pretty":
        raise Unreadable(_PRETTY)
    yield from _array(file) if layout == "array" else _lines(file)


def layout_of(file: str) -> str:
    """``lines``, ``array`` or ``pretty`` (an object over several lines), by how the text begins."""
    with open_text(file, newline="\n", code_pages=False) as text:
        first = text.read(_CHUNK_CHARS).lstrip(_BLANK).split("\n", 1)[0].rstrip(_BLANK)
    if _ARRAY_START.match(first):
        return "array"
    return "pretty" if first == "{" else "lines"


def _lines(file: str) -> Iterator[RawRow]:
    decoder = _Decoder()
    with open_text(file, newline="\n", code_pages=False) as lines:
        for number, line in enumerate(lines, start=1):
            if text := line.strip(_BLANK):
                yield _line(decoder, number, text)


def _line(decoder: _Decoder, number: int, text: str) -> RawRow:
    if not is_valid(text):
        return bad_row(number, _NOT_UTF8)
    try:
        return decoder.row(number, decoder.decode(text))
    except json.JSONDecodeError as error:  # its own number of the line is always 1
        return bad_row(number, f"the row is not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return bad_row(number, f"the row is not JSON: {error}")


def _array(file: str) -> Iterator[RawRow]:
    """Numbers are places in the array, from 1."""
    decoder = _Decoder()
    with open_text(file, newline="\n", code_pages=False) as text:
        window = _Window(text)
        window.skip()  # the bracket that ``layout_of`` saw
        is_last = window.next_char() == "]"
        for number in itertools.count(1):
            if is_last:
                break
            value, written = window.value(decoder, number)
            yield decoder.row(number, value) if is_valid(written) else bad_row(number, _NOT_UTF8)
            is_last = window.next_char() == "]"
            if not is_last:
                window.expect(",", number)
        window.skip()
        if window.next_char():
            raise Unreadable("there is text after the end of the JSON array")


class _Window:
    """The text of an array, of which little more than the current item is held."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._held, self._at = text, "", 0
        self._num_dropped = 0  #: characters before what is held
        self._is_complete = False

    def next_char(self) -> str:
        """The next character that is not a space; empty at the end."""
        while True:
            self._at += len(self._held[self._at :]) - len(self._held[self._at :].lstrip(_BLANK))
            if self._at < len(self._held) or self._is_complete:
                return self._held[self._at : self._at + 1]
            self._read(_CHUNK_CHARS)

    def skip(self) -> None:
        self.next_char()
        self._at += 1

    def expect(self, char: str, number: int) -> None:
        if (found := self.next_char()) != char:
            what = f"{found!r} follows" if found else "the file ends"
            raise Unreadable(f"row {number}: {what} where the JSON array should go on or end")
        self.skip()

    def value(self, decoder: _Decoder, number: int) -> tuple[Any, str]:
        """The next value, and how it is written. Raises Unreadable: what follows a broken item cannot be told."""
        self.next_char()
        size = _CHUNK_CHARS
        while True:
            try:
                value, end = decoder.decode_at(self._held, self._at)
                if end < len(self._held) or self._is_complete:
                    break  # otherwise a number may go on
            except json.JSONDecodeError as error:
                if self._is_complete:
                    place = self._num_dropped + error.pos + 1
                    raise Unreadable(f"row {number} is not JSON: {error.msg} (character {place})") from error
            except RecursionError as error:
                raise Unreadable(f"row {number} is not JSON: {error}") from error
            self._read(size)
            size *= 2
        written = self._held[self._at : end]
        self._at = end
        return value, written

    def _read(self, size: int) -> None:
        self._held, self._num_dropped, self._at = self._held[self._at :], self._num_dropped + self._at, 0
        more = self._text.read(size)
        self._held += more
        self._is_complete = not more
