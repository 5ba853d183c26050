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

from rlaif.data.files.arrow_sizes import num_bytes
from rlaif.data.files.raw_rows import RawRow, Unreadable
from rlaif.data.files.streams import IS_BOMB, MAX_BOMB_RATIO, MIN_BOMB_BYTES, is_compressed, open_bytes
from rlaif.data.files.tables import Cells, Header, header_of
from rlaif.errors import describe_error
from rlaif.places.urls import Unreachable

PARQUET_BATCH_ROWS = 256
MAX_BATCH_BYTES = 2**26
_MAX_RATIO = 10  #: of what is packed better, rows of any size may follow rows of any other: they are read one by one

_ARROW_FILE = b"ARROW1"  #: other Arrow data is a stream
_Batch = Any  #: a pyarrow.RecordBatch
_RowGroup = Any  #: a pyarrow.parquet.RowGroupMetaData
_File = Any  #: what pyarrow opens: a file object that can seek


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

    def __init__(self, batch: _Batch, max_chars: int) -> None:
        batch.validate()
        self._batch, self._max_chars = batch, max_chars
        self._full: dict[int, list[bool]] = {}
        self._values: dict[int, list[Any] | None] = {}

    def has(self, place: int, row: int) -> bool:
        if place not in self._full:
            self._full[place] = self._batch.column(place).is_valid().to_pylist()
        return self._full[place][row]

    def value(self, place: int, row: int) -> Any:
        if place not in self._values:
            self._values[place] = self._converted(place)
        values = self._values[place]
        return self._cell(place, row) if values is None else values[row]

    def _converted(self, place: int) -> list[Any] | None:
        """The values of a column; None when some cannot be converted or are too large, so that each is tried by
        itself."""
        column = self._batch.column(place)
        try:
            column.validate(full=True)
        except ValueError as error:
            if "UTF8" not in str(error):
                raise Unreadable(f"field `{self._name(place)}` is corrupted: {describe_error(error)}") from error
        if num_bytes(column) > self._max_chars:
            return None
        try:
            values: list[Any] = column.to_pylist()
        except (ValueError, ArithmeticError, NotImplementedError):  # pyarrow's errors are of these kinds
            return None
        return values

    def _cell(self, place: int, row: int) -> Any:
        cell = self._batch.column(place).slice(row, 1)
        if num_bytes(cell) > self._max_chars:
            raise Unreadable(
                f"field `{self._name(place)}` has more than {self._max_chars:,} bytes (data.limits.max_chars)"
            )
        try:
            return cell[0].as_py()
        except UnicodeDecodeError as error:
            raise Unreadable(f"field `{self._name(place)}` is not UTF-8 text") from error
        except (ValueError, ArithmeticError, NotImplementedError) as error:
            raise Unreadable(f"field `{self._name(place)}` cannot be read: {describe_error(error)}") from error

    def _name(self, place: int) -> str:
        return str(self._batch.schema.field(place).name)


def parquet_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    return _rows(file, "parquet", _parquet_batches, max_chars)


def arrow_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    """Both of Arrow's formats, the file (Feather) and the stream."""
    return _rows(file, "Arrow", _arrow_batches, max_chars)


def batch_rows(batch: _Batch, first: int, max_chars: int) -> Iterator[RawRow]:
    """The rows of a batch, of which the first has the number ``first``. Raises Unreadable."""
    header, columns = header_of(batch.schema.names), _Columns(batch, max_chars)
    for row in range(batch.num_rows):
        yield RawRow(first + row, _ArrowCells(header, columns, row))


def _rows(file: str, kind: str, batches: Callable[[_File], Iterator[_Batch]], max_chars: int) -> Iterator[RawRow]:
    import pyarrow as pa

    number = 0
    try:
        with _seekable(file) as source:
            for batch in batches(source):
                for row in batch_rows(batch, number + 1, max_chars):
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
        for index, group in enumerate(groups):
            yield from parquet.iter_batches(batch_size=_rows_at_once(group), row_groups=[index])


def _dictionaries(groups: Sequence[_RowGroup]) -> set[str]:
    """The columns of texts that the file holds once each: they stay so until their cells are asked for."""
    columns = (group.column(index) for group in groups for index in range(group.num_columns))
    return {
        column.path_in_schema
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page
    }


def _rows_at_once(group: _RowGroup) -> int:
    """So many rows that a batch has ``MAX_BATCH_BYTES`` at most, if no row is much larger than the others."""
    columns = [group.column(index) for index in range(group.num_columns)]
    size, packed = (sum(getattr(c, f"total_{kind}_size") for c in columns) for kind in ("uncompressed", "compressed"))
    if size <= MAX_BATCH_BYTES:
        return PARQUET_BATCH_ROWS
    if size > MAX_BOMB_RATIO * packed and size > MIN_BOMB_BYTES:
        raise Unreadable(IS_BOMB)
    return (
        1 if size > _MAX_RATIO * packed else max(1, min(MAX_BATCH_BYTES * group.num_rows // size, PARQUET_BATCH_ROWS))
    )


def _arrow_batches(source: _File) -> Iterator[_Batch]:
    import pyarrow as pa

    start = source.read(len(_ARROW_FILE))
    source.seek(0)
    if start != _ARROW_FILE:
        with pa.ipc.open_stream(source) as stream:
            yield from _small(stream)
    else:
        with pa.ipc.open_file(source) as reader:
            yield from _small(reader.get_batch(index) for index in range(reader.num_record_batches))


def _small(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """The same rows in batches that are cheap to convert."""
    for batch in batches:
        for start in range(0, batch.num_rows, PARQUET_BATCH_ROWS):
            yield batch.slice(start, PARQUET_BATCH_ROWS)


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
