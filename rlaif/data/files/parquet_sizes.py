"""How large the rows of a parquet file become in memory, from what it says of itself, before they are read.

The sizes that it states are of encoded pages: a few bytes may stand for a value that each row repeats, for a text of
which each row has all but the last letter, or for a list of a hundred million nulls.
"""

from __future__ import annotations

from typing import Any

from rlaif.data.files.raw_rows import Unreadable
from rlaif.data.files.streams import IS_BOMB, MAX_BOMB_RATIO, MIN_BOMB_BYTES

BATCH_ROWS = 256
MAX_BATCH_BYTES = 2**26
MAX_ROW_BYTES = 2**28  #: a row that may be larger is refused, unless its file is large itself
_MAX_RATIO = 10  #: of what is packed better, texts of any size may follow texts of any other: they are read one by one

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12, "BYTE_ARRAY": 8}
_LEVEL_BYTES = 5  #: of one value, whether it is null and where its list begins
_RowGroup = Any  #: a pyarrow.parquet.RowGroupMetaData
_ColumnChunk = Any  #: a pyarrow.parquet.ColumnChunkMetaData
_Schema = Any  #: a pyarrow.parquet.ParquetSchema


def rows_at_once(group: _RowGroup, schema: _Schema, file_bytes: int) -> int:
    """So many rows that a batch has ``MAX_BATCH_BYTES`` at most, if its lists are equally long. Raises Unreadable for
    what unpacks to far more than the file has."""
    columns = [group.column(index) for index in range(group.num_columns)]
    packed = min(sum(column.total_compressed_size for column in columns), file_bytes)
    size = longest_row = 0
    for index, column in enumerate(columns):
        value = _value_bytes(column, schema.column(index).length)
        size += column.num_values * value + _text_bytes(column)
        longest_row += (max(column.num_values - group.num_rows, 0) + 1) * value + _text_bytes(column)
    texts = sum(map(_text_bytes, columns))
    _refuse_bomb(sum(column.total_uncompressed_size for column in columns), MIN_BOMB_BYTES, packed)
    _refuse_bomb(longest_row, MAX_ROW_BYTES, packed)
    if texts > max(MAX_BATCH_BYTES, _MAX_RATIO * packed):
        return 1
    return max(1, min(MAX_BATCH_BYTES * int(group.num_rows) // max(size, 1), BATCH_ROWS))


def _value_bytes(column: _ColumnChunk, length: int) -> int:
    """The most that one value has, apart from a text that the file holds as it is; ``length`` is that of bytes of a
    fixed length."""
    if column.physical_type == "BYTE_ARRAY" and "DELTA_BYTE_ARRAY" in column.encodings:
        return int(column.total_uncompressed_size)  # each text may begin with all of the one before
    return int(length or _WIDTHS.get(column.physical_type, 8)) + _LEVEL_BYTES


def _text_bytes(column: _ColumnChunk) -> int:
    return int(column.total_uncompressed_size) if column.physical_type == "BYTE_ARRAY" else 0


def _refuse_bomb(size: int, most: int, packed: int) -> None:
    if size > max(most, MAX_BOMB_RATIO * packed):
        raise Unreadable(IS_BOMB)
