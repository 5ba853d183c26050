"""The bytes of a file, wherever it is."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.places.urls import NO_PARTS, Unreachable, ask, filesystem, is_url

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FIRST_BLOCK, LARGEST_BLOCK = 2**16, 2**23  #: bytes; files are opened more than once, the first times for their head


def open_file(name: str) -> io.BufferedReader:
    """The bytes of ``name``, as they are stored; can seek. Raises OSError, as reading does, and DataError."""
    return io.BufferedReader(Blocks(name)) if is_url(name) else Path(name).open("rb")


class Blocks(io.RawIOBase):
    """A file of a store, of which one block is held; blocks grow as long as they follow one another.

    A block that fails is asked for again (``ask``). Of a file that was replaced meanwhile, stores that can tell give
    no more.
    """

    def __init__(self, name: str) -> None:
        system = filesystem(name)
        self._name = name
        self._file: Any = ask(name, lambda: system.open(name, "rb", cache_type="none"))
        if not self._file.seekable() or self._file.size is None:
            raise Unreachable(NO_PARTS)
        self._size: int = self._file.size
        self._at = self._start = 0
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if not self._start <= self._at < self._start + len(self._held):
            self._fetch(len(view))
        part = self._held[self._at - self._start :][: len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _fetch(self, wanted: int) -> None:
        """Hold the block that begins here; nothing at the end of the file."""
        follows = self._at == self._start + len(self._held)
        num = max(2 * len(self._held) if follows else 0, wanted, FIRST_BLOCK)
        num = max(min(num, LARGEST_BLOCK, self._size - self._at), 0)
        self._start, self._held = self._at, memoryview(b"")
        self._held = memoryview(ask(self._name, lambda: self._read(num)) if num else b"")

    def _read(self, num: int) -> bytes:
        self._file.seek(self._at)
        block: bytes = self._file.read(num)
        if len(block) != num:
            raise ConnectionError(f"{len(block)} bytes came instead of {num}")
        return block

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
