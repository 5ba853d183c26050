"""Rows of JSON: one object a line, or an array of objects. Both stream."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from rlaif.data.files.objects import JsonDecoder, given_twice
from rlaif.data.files.raw_rows import RawRow, Unreadable, bad_row, too_long
from rlaif.data.files.streams import is_valid, open_text

_CHUNK_CHARS = 2**20
_BLANK = "\ufeff \t\r\n\f\v"  #: a byte order mark too: files are joined
_NOT_BLANK = re.compile(f"[^{_BLANK}]")
_STRUCTURE = re.compile(r'["\\{}\[\]]')
_LONGEST_TOKEN = 16  #: characters of JSON, besides texts and numbers: ``-Infinity``, ``\\ud83d\\ude00``
_ARRAY_START = re.compile(r"\[\s*(\{|\]|$)")
_NOT_UTF8 = "the row is not UTF-8 text"
_PRETTY = "the file holds JSON objects spread over lines; write each on one line (`jq -c .`), or all as one array"


def json_line_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    """One object a line; numbers are line numbers, and blank lines count, so that an editor finds the row."""
    if (layout := layout_of(file)) == "array":
        raise Unreadable("the file holds one JSON array, not an object per line; name it .json")
    if layout == "pretty":
        raise Unreadable(_PRETTY)
    yield from _lines(file, max_chars)


def json_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    """An array of objects, or one object a line, whichever the file holds."""
    if (layout := layout_of(file)) == "pretty":
        raise Unreadable(_PRETTY)
    yield from _array(file, max_chars) if layout == "array" else _lines(file, max_chars)


def layout_of(file: str) -> str:
    """``lines``, ``array`` or ``pretty`` (an object over several lines), by how the text begins."""
    with open_text(file, newline="\n", code_pages=False) as text:
        first = text.read(_CHUNK_CHARS).lstrip(_BLANK).split("\n", 1)[0].rstrip(_BLANK)
    if _ARRAY_START.match(first):
        return "array"
    return "pretty" if first == "{" else "lines"


def _lines(file: str, max_chars: int) -> Iterator[RawRow]:
    decoder = JsonDecoder()
    with open_text(file, newline="\n", code_pages=False) as text:
        for number in itertools.count(1):
            line = text.readline(max_chars + 1)
            if len(line) > max_chars and not line.endswith("\n"):
                yield bad_row(number, too_long(max_chars))
                _pass_over_line(text)
            elif row := line.strip(_BLANK):
                yield _line(decoder, number, row)
            elif not line:
                return


def _row(decoder: JsonDecoder, number: int, value: Any) -> RawRow:
    """The row that the last value of ``decoder`` is."""
    if not isinstance(value, dict):
        return bad_row(number, "the row is not a JSON object")
    if decoder.repeated is not None:
        return bad_row(number, given_twice(decoder.repeated))
    return RawRow(number, value)


def _pass_over_line(text: TextIO) -> None:
    while (part := text.readline(_CHUNK_CHARS)) and not part.endswith("\n"):
        pass


def _line(decoder: JsonDecoder, number: int, text: str) -> RawRow:
    if not is_valid(text):
        return bad_row(number, _NOT_UTF8)
    try:
        return _row(decoder, number, decoder.decode(text))
    except json.JSONDecodeError as error:  # its own number of the line is always 1
        return bad_row(number, f"the row is not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return bad_row(number, f"the row is not JSON: {error}")


def _array(file: str, max_chars: int) -> Iterator[RawRow]:
    """Numbers are places in the array, from 1."""
    decoder = JsonDecoder()
    with open_text(file, newline="\n", code_pages=False) as text:
        window = _Window(text)
        window.skip()  # the bracket that ``layout_of`` saw
        is_last = window.next_char() == "]"
        for number in itertools.count(1):
            if is_last:
                break
            yield window.row(decoder, number, max_chars)
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
            found = _NOT_BLANK.search(self._held, self._at)  # without a copy of what is held, for each of many rows
            self._at = found.start() if found else len(self._held)
            if found or self._is_complete:
                return found[0] if found else ""
            self._read(_CHUNK_CHARS)

    def skip(self) -> None:
        self.next_char()
        self._at += 1

    def expect(self, char: str, number: int) -> None:
        if (found := self.next_char()) != char:
            what = f"{found!r} follows" if found else "the file ends"
            raise Unreadable(f"row {number}: {what} where the JSON array should go on or end")
        self.skip()

    def row(self, decoder: JsonDecoder, number: int, max_chars: int) -> RawRow:
        """The next value as a row. Raises Unreadable: what follows a broken item cannot be told."""
        self.next_char()
        size = _CHUNK_CHARS
        while True:
            try:
                value, end = decoder.decode_at(self._held, self._at)
                if end < len(self._held) or self._is_complete:
                    break  # otherwise a number may go on
            except json.JSONDecodeError as error:
                if self._is_complete or not self._is_cut_off(error):
                    place = self._num_dropped + error.pos + 1
                    raise Unreadable(f"row {number} is not JSON: {error.msg} (character {place})") from error
            except (RecursionError, ValueError) as error:
                self._pass_over(number)
                return bad_row(number, f"the row is not JSON: {error}")
            if len(self._held) - self._at > max_chars:
                self._pass_over(number)
                return bad_row(number, too_long(max_chars))
            self._read(size)
            size *= 2
        written, self._at = self._held[self._at : end], end
        if len(written) > max_chars:
            return bad_row(number, too_long(max_chars))
        return _row(decoder, number, value) if is_valid(written) else bad_row(number, _NOT_UTF8)

    def _is_cut_off(self, error: json.JSONDecodeError) -> bool:
        """Whether a mistake may be that what is held ends too early."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self._held) - _LONGEST_TOKEN

    def _pass_over(self, number: int) -> None:
        """Go to where an object, a list or a text ends, holding no more than a part of it. Raises Unreadable."""
        if self.next_char() not in '{["':
            raise Unreadable(f"row {number} is not JSON that can be read")
        depth, in_text, escaped = 0, False, -1
        while True:
            for match in _STRUCTURE.finditer(self._held, self._at):
                if match.start() == escaped:
                    continue
                if in_text:
                    in_text, escaped = match[0] != '"', match.end() if match[0] == "\\" else -1
                else:
                    in_text = match[0] == '"'
                    depth += (match[0] in "{[") - (match[0] in "}]")
                if depth <= 0 and not in_text:
                    self._at = match.end()
                    return
            escaped -= len(self._held)
            self._at = len(self._held)
            self._read(_CHUNK_CHARS)
            if self._is_complete:
                raise Unreadable(f"row {number}: the file ends within it")

    def _read(self, size: int) -> None:
        self._held, self._num_dropped, self._at = self._held[self._at :], self._num_dropped + self._at, 0
        more = self._text.read(size)
        self._held += more
        self._is_complete = not more
