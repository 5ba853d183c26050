"""What the judge of an audit sees, and how the verdicts are read back.

The sheet (``audit.csv``) and the page (``audit.html``) show the same pairs in the same order and nothing about the
label: no probability, no verdict, no stratum. Which answer is on the left is drawn at random.

The texts come from a model and are not trusted. Where a spreadsheet could read the beginning of a formula (``= + - @``,
or a character that stands for one, after any blanks, quotes and invisible characters), an apostrophe goes first, which
spreadsheets show or hide. That is so at the beginning of a text and after every comma, semicolon, tab and line break in
it: a spreadsheet that expects another delimiter than the comma begins a cell there, whatever the quotes. Line breaks
become LF, every cell is quoted, and a text too long for a cell is cut in the sheet and complete on the page. None of
this has to be undone: only ``id``, ``verdict`` and ``comment`` are read back.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlaif.data.files.csv_rows import MAX_CSV_FIELD_CHARS
from rlaif.errors import DataError
from rlaif.evaluation.audit.sample import Pair
from rlaif.evaluation.pages import page
from rlaif.prompting.questions import SPEAKERS
from rlaif.records import Turn

SHEET_TEMPLATE = "audit/audit.html.jinja"
COLUMNS = ("id", "conversation", "answer_left", "answer_right", "verdict", "comment")
DELIMITERS = ",;\t"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")  #: how "Unicode text" from a spreadsheet begins
DECIMAL = re.compile(r"([12])[.,]0+")
DECLARED_DELIMITER = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  #: Excel reads such a first line, and does not show it
LINE_BREAKS = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")  #: besides LF
CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f]")  #: some programs stop reading at them
CELL_STARTS = re.compile(r"([,;\t\n])")  #: after these, some program begins a cell
FORMULA_STARTS = frozenset("=+-@−")  #: and what is compatible with one of them, such as full-width forms
MAX_CELL_CHARS = 16_000  #: a cell holds 32,767 UTF-16 units, and a character may take two

Verdict = Literal["left", "right", "tie"]
VERDICTS: Mapping[str, Verdict] = {
    "left": "left",
    "right": "right",
    "tie": "tie",
    "1": "left",
    "2": "right",
    "=": "tie",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetVerdict:
    """A row of the sheet that has a verdict. ``row`` counts as the spreadsheet does: the header is row 1."""

    row: int
    id: str
    verdict: Verdict
    comment: str


# ------------------------------------------------------------------------------------------------- for the judge
def sheet(pairs: Sequence[Pair]) -> str:
    """``audit.csv``; the byte order mark tells Excel that it is UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for pair in pairs:
        texts = conversation_text(pair.conversation), pair.left, pair.right
        writer.writerow((pair.id, *map(harmless, texts), "", ""))
    return "\ufeff" + text.getvalue()


def harmless(text: str) -> str:
    """``text`` as a cell that no spreadsheet runs as a formula, splits into formulas or truncates."""
    text = CONTROLS.sub("\ufffd", LINE_BREAKS.sub("\n", text))
    if len(text) > MAX_CELL_CHARS:
        text = f"{text[:MAX_CELL_CHARS]} [... the whole text is in audit.html]"
    return "".join(f"'{part}" if _begins_formula(part) else part for part in CELL_STARTS.split(text))


def _begins_formula(part: str) -> bool:
    first = next((char for char in part if not _is_passed_over(char)), "")
    return unicodedata.normalize("NFKC", first)[:1] in FORMULA_STARTS


def _is_passed_over(char: str) -> bool:
    """Whether a spreadsheet may drop ``char`` at the beginning of a cell."""
    return char == '"' or unicodedata.category(char)[0] in "CZ"


def conversation_text(turns: Sequence[Turn]) -> str:
    return "\n\n".join(f"{SPEAKERS[turn.role]}: {turn.text}" for turn in turns)


def reading_page(pairs: Sequence[Pair]) -> str:
    """``audit.html``: the sheet's pairs, easier to read, with their row numbers in the sheet."""
    rows = [
        {"number": number, "id": pair.id, "turns": pair.conversation, "left": pair.left, "right": pair.right}
        for number, pair in enumerate(pairs, start=2)
    ]
    return page(SHEET_TEMPLATE, {"rows": rows, "speakers": SPEAKERS}, {})


# -------------------------------------------------------------------------------------------------- from the judge
def read_verdicts(file: Path, ids: frozenset[str]) -> list[SheetVerdict]:
    """The rows of a filled sheet that have a verdict; ``ids`` are those that may occur.

    A spreadsheet may have saved it with another delimiter, or with columns added or reordered. Raises DataError with
    all mistakes, one ``file: row, column: mistake`` a line.
    """
    rows = _rows(file)
    places = _places(file, next(rows, (1, []))[1])
    judged: list[SheetVerdict] = []
    mistakes: list[str] = []
    seen: dict[str, int] = {}
    for number, cells in rows:
        id, verdict, comment = (_cell(cells, place) for place in places)
        if not id and not verdict:  # an empty line, or one below the table
            continue
        mistakes_here = [*_id_mistakes(id, ids, seen), *_verdict_mistakes(verdict)]
        mistakes += [f"{file}: row {number}, {mistake}" for mistake in mistakes_here]
        seen.setdefault(id, number)
        if verdict and not mistakes_here:
            judged.append(SheetVerdict(row=number, id=id, verdict=VERDICTS[_plain_verdict(verdict)], comment=comment))
    if mistakes:
        raise DataError("\n".join(mistakes))
    if not judged:
        raise DataError(f"{file}: column verdict: no row has a verdict; fill in left, right or tie")
    return judged


def _id_mistakes(id: str, ids: frozenset[str], seen: Mapping[str, int]) -> Iterator[str]:
    if not id:
        yield "column id: empty, but the row has a verdict"
    elif id in seen:
        yield f"column id: {_quoted(id)} is also in row {seen[id]}"
    elif id not in ids:
        yield (
            f"column id: {_quoted(id)} is not from this run's last export; "
            "if the sheet is from an earlier one, export again with its --rows and --seed"
        )


def _verdict_mistakes(verdict: str) -> Iterator[str]:
    if verdict and _plain_verdict(verdict) not in VERDICTS:
        yield f"column verdict: {_quoted(verdict)} is not left, right or tie (or 1, 2, =)"


def _plain_verdict(cell: str) -> str:
    """A verdict without what programs add: the apostrophe of a text, the decimals of a column with blanks."""
    text = cell.removeprefix("'").strip().casefold()
    return decimal[1] if (decimal := DECIMAL.fullmatch(text)) else text


def _quoted(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:40]}...")


def _places(file: Path, header: Sequence[str]) -> tuple[int, int, int | None]:
    """The columns of id, verdict and comment; the last may have been deleted."""
    names = [name.strip().casefold() for name in header]
    for name in ("id", "verdict"):
        if names.count(name) != 1:
            how = "more than once" if name in names else "missing"
            raise DataError(f"{file}: row 1, column {name}: {how}; a sheet is CSV with the header of audit.csv")
    comment = names.index("comment") if "comment" in names else None
    return names.index("id"), names.index("verdict"), comment


def _cell(cells: Sequence[str], place: int | None) -> str:
    return cells[place].strip() if place is not None and place < len(cells) else ""


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows, numbered as in the spreadsheet, which counts empty ones."""
    csv.field_size_limit(MAX_CSV_FIELD_CHARS)
    text = _text(file)
    number = 0
    declared = DECLARED_DELIMITER.match(text)
    table = text[declared.end() :] if declared else text
    delimiter = declared[1] if declared else _delimiter(text)
    reader = csv.reader(io.StringIO(table, newline=""), delimiter=delimiter, strict=True)
    try:
        for number, cells in enumerate(reader, start=1):
            yield number, cells
    except csv.Error as error:
        raise DataError(f"{file}: row {number + 1}: not CSV: {error}") from error


def _delimiter(text: str) -> str:
    """The most frequent one in the header; no column's name contains any."""
    header = text.split("\n", 1)[0]
    return max(DELIMITERS, key=header.count)


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if data.startswith(UTF_16_MARKS):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:  # Excel's plain CSV uses the Windows code page; ids and verdicts are ASCII
        return data.decode("cp1252", errors="replace")
