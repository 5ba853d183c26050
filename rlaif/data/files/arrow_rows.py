"""Rows of columnar files: .parquet and .arrow. Only the cells that a reader asks for become Python values.

Batches are bounded in bytes, not only in rows, and a cell is measured before it is made: a text that a file holds once
may be meant by every row.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rlaif.data.files.arrow_messages import FILE_MARK, refuse_bombs
from rlaif.data.files.arrow_sizes import num_bytes
from rlaif.data.files.parquet_sizes import BATCH_ROWS, rows_at_once
from rlaif.data.files.raw_rows import RawRow, Unreadable
from rlaif.data.files.streams import IS_BOMB, MAX_BOMB_RATIO, MIN_BOMB_BYTES, is_compressed, open_bytes
from rlaif.data.files.tables import Cells, Header, header_of
from rlaif.errors import describe_error
from rlaif.places.urls import Unreachable

_Batch = Any  #: a pyarrow.RecordBatch
_RowGroup = Any  #: a pyarrow.parquet.RowGroupMetaData
_File = Any  #: what pyarrow opens: a file object that can seek
#: What pyarrow raises for a value that Python cannot hold: ArrowInvalid, OverflowError, and, for types that it does not
#: convert, ArrowNotImplementedError.
NOT_CONVERTED = (ValueError, ArithmeticError, NotImplementedError)


class Budget:
    """How much may be made of a file: a text that it holds once may be meant by any number of rows."""

    def __init__(self, file_bytes: int | None = None) -> None:
        self._rest = None if file_bytes is None else max(MIN_BOMB_BYTES, MAX_BOMB_RATIO * file_bytes)

    def take(self, size: int) -> None:
        """Raises Unreadable when it is used up."""
        if self._rest is not None:
            self._rest -= size
            if self._rest < 0:
                raise Unreadable(IS_BOMB)


class _ArrowCells(Cells):
    def __init__(self, header: Header, batch: _Columns, row: int) -> None:
        super().__init__(header)
        self._batch, self._row = batch, row

    def has(self, place: int) -> bool:
        return self._batch.has(place, self._row)

    def value(self, place: int) -> Any:
        return self._batch.value(place, self._row)


class _Columns:
    """The columns of one batch, each checked and converted as a whole when its first cell is asked for.

    Arrow trusts what it reads: a column whose offsets are corrupted would end the process when it is converted.
    """

    def __init__(self, batch: _Batch, max_chars: int, budget: Budget) -> None:
        batch.validate()
        self._batch, self._max_chars, self._budget = batch, max_chars, budget
        self._full: dict[int, list[bool]] = {}
        self._values: dict[int, list[Any] | None] = {}
        self._last: dict[int, tuple[int, Any]] = {}  #: of each column, the cell that was last made by itself

    def has(self, place: int, row: int) -> bool:
        if place not in self._full:
            self._full[place] = self._batch.column(place).is_valid().to_pylist()
        return self._full[place][row]

    def value(self, place: int, row: int) -> Any:
        if place not in self._values:
            self._values[place] = self._converted(place)
        values = self._values[place]
        if values is not None:
            return values[row]
        if self._last.get(place, (None,))[0] != row:
            self._last[place] = row, self._cell(place, row)
        return self._last[place][1]

    def _converted(self, place: int) -> list[Any] | None:
        """The values of a column; None when some cannot be converted or are too large, so that each is tried by
        itself."""
        column = self._batch.column(place)
        try:
            column.validate(full=True)
        except ValueError as error:
            if "UTF8" not in str(error):
                raise Unreadable(f"field `{self._name(place)}` is corrupted: {describe_error(error)}") from error
        if (size := num_bytes(column)) > self._max_chars:
            return None
        self._budget.take(size)
        try:
            values: list[Any] = column.to_pylist()
        except NOT_CONVERTED:
            return None
        return values

    def _cell(self, place: int, row: int) -> Any:
        cell = self._batch.column(place).slice(row, 1)
        if (size := num_bytes(cell)) > self._max_chars:
            raise Unreadable(
                f"field `{self._name(place)}` has more than {self._max_chars:,} bytes (data.limits.max_chars)"
            )
        self._budget.take(size)
        try:
            return cell[0].as_py()
        except UnicodeDecodeError as error:
            raise Unreadable(f"field `{self._name(place)}` is not UTF-8 text") from error
        except NOT_CONVERTED as error:
            raise Unreadable(f"field `{self._name(place)}` cannot be read: {describe_error(error)}") from error

    def _name(self, place: int) -> str:
        return str(self._batch.schema.field(place).name)


def parquet_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    return _rows(file, "parquet", _parquet_batches, max_chars)


def arrow_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    """Both of Arrow's formats, the file (Feather) and the stream."""
    return _rows(file, "Arrow", _arrow_batches, max_chars)


def batch_rows(batch: _Batch, first: int, max_chars: int, budget: Budget) -> Iterator[RawRow]:
    """The rows of a batch, of which the first has the number ``first``. Raises Unreadable."""
    header, columns = header_of(batch.schema.names), _Columns(batch, max_chars, budget)
    for row in range(batch.num_rows):
        yield RawRow(first + row, _ArrowCells(header, columns, row))


def _rows(file: str, kind: str, batches: Callable[[_File], Iterator[_Batch]], max_chars: int) -> Iterator[RawRow]:
    import pyarrow as pa

    number = 0
    try:
        with _seekable(file) as source:
            budget = Budget(_num_bytes_of(source))
            for batch in batches(source):
                for row in batch_rows(batch, number + 1, max_chars, budget):
                    yield row
                    number += 1
    except (Unreadable, Unreachable):
        raise
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:  # a corrupted length may ask for any amount
        raise Unreadable(f"cannot be read as {kind} after row {number}: {describe_error(error)}") from error


def _parquet_batches(source: _File) -> Iterator[_Batch]:
    import pyarrow.parquet as pq

    about = pq.read_metadata(source)
    groups = [about.row_group(index) for index in range(about.num_row_groups)]
    with pq.ParquetFile(source, metadata=about, read_dictionary=sorted(_dictionaries(groups))) as parquet:
        header_of(parquet.schema_arrow.names)  # a column that is there twice is named, even above no rows
        file_bytes = _num_bytes_of(source)
        for index, group in enumerate(groups):
            num = rows_at_once(group, about.schema, file_bytes)
            yield from parquet.iter_batches(batch_size=num, row_groups=[index])


def _dictionaries(groups: Sequence[_RowGroup]) -> set[str]:
    """The columns of texts that the file holds once each: they stay so until their cells are asked for."""
    columns = (group.column(index) for group in groups for index in range(group.num_columns))
    return {
        column.path_in_schema
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page
    }


def _arrow_batches(source: _File) -> Iterator[_Batch]:
    import pyarrow as pa

    source.seek(0)
    is_file = source.read(len(FILE_MARK)) == FILE_MARK
    source.seek(0)
    with pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source) as reader:  # which says what is damaged
        refuse_bombs(source)
        if is_file:
            yield from _small(reader.get_batch(index) for index in range(reader.num_record_batches))
    if not is_file:
        source.seek(0)
        with pa.ipc.open_stream(source) as stream:
            yield from _small(stream)


def _small(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """The same rows in batches that are cheap to convert."""
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _num_bytes_of(source: _File) -> int:
    num = int(source.seek(0, 2))
    source.seek(0)
    return num


@contextmanager
def _seekable(file: str) -> Iterator[_File]:
    """The bytes of ``file``; what is compressed is unpacked on disk first, because these formats begin at the end."""
    with ExitStack() as stack:
        stream: _File = stack.enter_context(open_bytes(file))
        if is_compressed(stream):
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            stream = unpacked
        yield stream
