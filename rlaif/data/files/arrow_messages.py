"""What the compressed batches of Arrow data unpack to, before they are unpacked: pyarrow unpacks a whole batch at once.

Arrow data is a row of messages. Each is a flatbuffer, which says where its buffers are, and a body with the buffers; a
compressed one begins with its size (https://arrow.apache.org/docs/format/Columnar.html). A file has besides a footer,
which says where the messages are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from rlaif.data.files.parquet_sizes import MAX_ROW_BYTES
from rlaif.data.files.raw_rows import Unreadable
from rlaif.data.files.streams import IS_BOMB, MAX_BOMB_RATIO

FILE_MARK = b"ARROW1"  #: other Arrow data is a stream
_File = Any  #: what pyarrow opens: a file object that can seek
_Message = Any  #: a pyarrow.ipc.Message

_BUFFER, _BLOCK, _SIZE = struct.Struct("<qq"), struct.Struct("<qi4xq"), struct.Struct("<q")
_NOT_COMPRESSED = -1  #: the size of a buffer that was left as it is
_OLD_COMPRESSION = b"ARROW:experimental_compression"


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place

    def has(self, field: int) -> bool:
        return self._start(field) is not None

    def table(self, field: int) -> _Table:
        start = self._start(field)
        if start is None:
            raise ValueError("a message lacks its header")
        return _Table(self._data, start + self._number("<I", start))

    def structs(self, field: int, layout: struct.Struct) -> Iterator[tuple[int, ...]]:
        start = self._start(field)
        if start is not None:
            first = start + self._number("<I", start) + 4
            num = self._number("<I", first - 4)
            yield from layout.iter_unpack(self._data[first : first + num * layout.size])

    def _start(self, field: int) -> int | None:
        fields = self._place - self._number("<i", self._place)
        entry = 4 + 2 * field
        offset = self._number("<H", fields + entry) if entry < self._number("<H", fields) else 0
        return self._place + offset if offset else None

    def _number(self, kind: str, place: int) -> int:
        return int(struct.unpack_from(kind, self._data, place)[0])


def refuse_bombs(source: _File) -> None:
    """Raises Unreadable when a batch of Arrow data in ``source``, or all its dictionaries, unpack to far more than they
    are; ValueError and pyarrow's errors when it is damaged."""
    held = held_packed = 0  # of dictionaries, which stay
    try:
        for message in _messages(source):
            size, packed = _unpacked_bytes(message), message.body.size
            if message.type == "dictionary":
                held, held_packed = held + size, held_packed + packed
                size, packed = held, held_packed
            if size > max(MAX_ROW_BYTES, MAX_BOMB_RATIO * packed):
                raise Unreadable(IS_BOMB)
    except struct.error as error:
        raise ValueError(f"a message is damaged: {error}") from None


def _messages(source: _File) -> Iterator[_Message]:
    import pyarrow as pa

    source.seek(0)
    if source.read(len(FILE_MARK)) != FILE_MARK:
        source.seek(0)
        yield from pa.ipc.MessageReader.open_stream(source)
        return
    end = source.seek(-len(FILE_MARK) - 4, 2)
    (length,) = struct.unpack("<i", source.read(4))
    source.seek(max(end - length, 0))
    footer = source.read(length)
    about = _Table(footer, struct.unpack_from("<I", footer)[0])
    for field in (2, 3):  # dictionaries, batches
        for place, _, _ in about.structs(field, _BLOCK):
            source.seek(place)
            yield pa.ipc.read_message(source)


def _unpacked_bytes(message: _Message) -> int:
    """What the compressed buffers of a message unpack to."""
    if message.type not in ("record batch", "dictionary"):
        return 0
    about = bytes(message.metadata)
    header = _Table(about, struct.unpack_from("<I", about)[0]).table(2)
    batch = header.table(1) if message.type == "dictionary" else header
    if not batch.has(3) and _OLD_COMPRESSION not in about:
        return 0
    return sum(_buffer_bytes(message.body, place, length) for place, length in batch.structs(2, _BUFFER))


def _buffer_bytes(body: Any, place: int, length: int) -> int:
    if not _SIZE.size <= length <= body.size - place:
        return 0
    (size,) = _SIZE.unpack(bytes(body[place : place + _SIZE.size]))
    return length if size == _NOT_COMPRESSED else max(int(size), 0)
