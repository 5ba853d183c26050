"""What is in a source and what it can be used as: every row is tried by every reader, in one pass and bounded memory.

Nothing is used here. What a run would refuse is refused here too, for the same reason and in the same words.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field, replace

from rlaif.config.source import DEFAULT_LIMITS, Source, is_data_set
from rlaif.data.dialogues.conversations import form_of
from rlaif.data.dialogues.messages import has_thoughts
from rlaif.data.excess import SourceRecord, refuse_excess
from rlaif.data.files.formats import describe_file
from rlaif.data.files.raw_rows import Unreadable
from rlaif.data.files.sources import files_of, passed_over, row_choice
from rlaif.data.files.streams import READ_ERRORS
from rlaif.data.mapped_fields import MappedFields
from rlaif.data.readers import READERS, Reader
from rlaif.data.rows import BadRow, SourceRow, parsed, rows_in
from rlaif.errors import DataError
from rlaif.records import Comparison, PreferencePair, Prompt

NUM_SHOWN = 10  #: rows that are kept to be shown
MAX_COMPARED = 500_000  #: rows among which equal ones are looked for
_MAX_KINDS = 1000  #: causes and shapes that are told apart
_MAX_COLUMNS = 40
_PLACES = re.compile(r"(?<=\[)\d+(?=\])|(?<=column )\d+|(?<=character )\d+|(?<=line )\d+")
_REST = "other"


@dataclass
class Cause:
    """Why rows are quarantined: in the words of the first, and where that is."""

    words: str
    file: str
    row: int
    num: int = 0


@dataclass
class Use:
    """What one reader makes of a source. ``refusal``: why a run would refuse the whole, None when it would not."""

    name: str
    reader: Reader
    num_usable: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    causes: dict[str, Cause] = field(default_factory=dict)
    records: list[SourceRecord] = field(default_factory=list)  #: the first ones
    num_repeated: int = 0
    num_same: int = 0  #: pairs whose answers do not differ
    num_with_thoughts: int = 0  #: rows of whose messages the thoughts are left out
    refusal: str | None = None
    _seen: set[int] = field(default_factory=set)

    @property
    def num_quarantined(self) -> int:
        return sum(cause.num for cause in self.causes.values())

    def add(self, row: SourceRow) -> str | None:
        """Try one row; returns what is wrong with it, None when it is usable."""
        try:
            record = parsed(row, self._read)
        except (BadRow, Unreadable) as error:
            self._quarantine(row, str(error))
            return str(error)
        self.num_usable += 1
        self._compare(record)
        if len(self.records) < NUM_SHOWN:
            self.records.append(record)
        return None

    def _read(self, row: SourceRow) -> SourceRecord:
        record = self.reader.parse(replace(row, seen=Counter()))  # ids are not looked at
        refuse_excess(record, DEFAULT_LIMITS)
        names = self.reader.fields_of(row.fields)
        shape = f"{', '.join(f'`{name}`' for name in names)} ({form_of(row.fields[names[0]], names[0])})"
        self.shapes[shape if shape in self.shapes or len(self.shapes) < _MAX_KINDS else _REST] += 1
        self.num_with_thoughts += any(has_thoughts(row.fields[name]) for name in names)
        return record

    def _quarantine(self, row: SourceRow, words: str) -> None:
        key = _PLACES.sub("N", words)
        key = key if key in self.causes or len(self.causes) < _MAX_KINDS else _REST
        self.causes.setdefault(key, Cause(words=words, file=row.file, row=row.number)).num += 1

    def _compare(self, record: SourceRecord) -> None:
        conversation, answers = content_of(record)
        self.num_same += len(answers) == 2 and answers[0] == answers[1]
        key = hash((conversation, answers))
        if key in self._seen:
            self.num_repeated += 1
        elif len(self._seen) < MAX_COMPARED:
            self._seen.add(key)


@dataclass
class Overview:
    """``kinds``: how many files are of which kind. ``stopped``: why reading ended before the last row, if it did."""

    source: str
    num_files: int
    kinds: Counter[str]
    passed_over: list[str]
    uses: list[Use]
    columns: dict[str, None] = field(default_factory=dict)  #: an ordered set
    num_rows: int = 0
    stopped: str | None = None

    @property
    def usable(self) -> list[Use]:
        return [use for use in self.uses if use.num_usable and not use.refusal]


def content_of(record: SourceRecord) -> tuple[Hashable, tuple[Hashable, ...]]:
    """What is asked, and the answers to it."""
    if isinstance(record, Prompt):
        return record.turns, ()
    if isinstance(record, PreferencePair):
        return record.prompt, (record.chosen, record.rejected)
    if isinstance(record, Comparison):
        return record.prompt, (record.answer_1, record.answer_2)
    return record.question, record.answers


def survey(source: Source | str, uses: Collection[str] = tuple(READERS)) -> Overview:
    """Read all of ``source`` with the readers ``uses``. Raises DataError when there is no such source."""
    place = str(source)
    files = files_of(place)
    overview = Overview(
        source=place,
        num_files=len(files),
        kinds=Counter(map(_kind, files)),
        passed_over=passed_over(place),
        uses=[Use(name=name, reader=READERS[name]) for name in READERS if name in uses],
    )
    try:
        _read(overview, MappedFields(Source.of(source).fields))
    except DataError as error:
        overview.stopped = str(error)
        for use in overview.uses:
            use.refusal = overview.stopped
    return overview


def _read(overview: Overview, fields: MappedFields) -> None:
    """Every row, with every reader; a run refuses a source of which one file has no usable row."""
    source = overview.source
    _, choice = row_choice(source)
    for file, rows in itertools.groupby(rows_in(source), key=lambda row: row.file if choice is None else source):
        hopeless: dict[str, str] = {}  #: use -> what is wrong with the first row, while no row is usable
        for index, row in enumerate(rows):
            overview.num_rows += 1
            _note_columns(overview.columns, row)
            row = _mapped(row, fields)
            for use in overview.uses:
                mistake = use.add(row)
                if mistake is None:
                    hopeless.pop(use.name, None)
                elif index == 0:
                    hopeless[use.name] = f"{file}: every row is unusable; row {row.number}: {mistake}"
        for use in overview.uses:
            use.refusal = use.refusal or hopeless.get(use.name)
    fields.check(source)
    if not overview.num_rows:
        raise DataError(f"{source}: there are no rows in it")


def _mapped(row: SourceRow, fields: MappedFields) -> SourceRow:
    try:
        return fields.row(row)
    except (BadRow, Unreadable) as error:
        return replace(row, mistake=str(error))


def _note_columns(columns: dict[str, None], row: SourceRow) -> None:
    if len(columns) < _MAX_COLUMNS:
        columns.update(dict.fromkeys(itertools.islice(map(str, row.fields), _MAX_COLUMNS)))


def _kind(file: str) -> str:
    if is_data_set(file):
        return "data set of the hub, or in its layout"
    try:
        return describe_file(file)
    except (Unreadable, *READ_ERRORS):
        return "cannot be read"  # as the rows will say, in full
