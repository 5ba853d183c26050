"""The bytes and the text of one file: compression, encoding, and files that are not what their name says.

Compression is known by a file's first bytes, not by its name: browsers unpack what they save.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from rlaif.data.files.raw_rows import Unreadable
from rlaif.places.reading import open_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
"""What reading a file that is cut short, corrupted or not text may raise, whatever library reads it."""

_CHUNK = 2**20
_HEAD = 512  #: bytes that say what a file is
_BYTE_ORDER_MARK = codecs.BOM_UTF8

#: Files that have a data file's name and are none, by how they begin (in lower case).
_IMPOSTORS: Mapping[bytes, str] = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
    b"<!doctype html": "is an HTML page, not data; did its download fail?",
    b"<html": "is an HTML page, not data; did its download fail?",
    b"<?xml": "is an XML document, not data; did its download fail?",
    b"pk\x03\x04": "is a zip archive or an Office document; unpack it, or save it as CSV",
    b"\x04\x22\x4d\x18": f"is compressed with lz4; use one of {', '.join(COMPRESSIONS)}",
}
_BINARY: Mapping[bytes, str] = {
    b"PAR1": "is a parquet file; name it .parquet",
    b"ARROW1": "is an Arrow file; name it .arrow",
}
_WESTERN = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœ‘’“”–—…•€£§°´«»©®™¡¿·\u00a0")
_MAX_WESTERN_SHARE = (
    0.3  #: of the letters of a Western language; in other scripts' code pages nearly all are beyond ASCII
)


# ---------------------------------------------------------------------------------------------------------- bytes
def _zstd(stream: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream), "zstd")


_UNPACKERS: Mapping[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}
MIN_BOMB_BYTES, MAX_BOMB_RATIO = 2**30, 1000  #: more than both, unpacked, and no file of texts is that
IS_BOMB = f"unpacks to more than {MAX_BOMB_RATIO} times its size: damaged, or made to fill memory; pack it otherwise"


class _Unpacked(io.RawIOBase):
    """What is unpacked from a stream, up to where it turns out to be made of nothing."""

    def __init__(self, unpacker: Any, packed: BinaryIO) -> None:
        self._unpacker, self._packed = unpacker, packed
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        part = self._unpacker.read(len(view))
        view[: len(part)] = part
        self._num_bytes += len(part)
        if self._num_bytes > MIN_BOMB_BYTES and self._num_bytes > MAX_BOMB_RATIO * self._packed.tell():
            raise Unreadable(IS_BOMB)
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._unpacker.close()
        super().close()


_UNPACKER_NAMES = ("gzip", "zstd", "xz", "bzip2")


def compression_of(file: str) -> str | None:
    """How ``file`` is compressed; None when it is not. Raises OSError."""
    with open_file(file) as stream:
        head = stream.peek(_HEAD)
    return next((name for magic, name in zip(_UNPACKERS, _UNPACKER_NAMES, strict=True) if head.startswith(magic)), None)


@contextmanager
def open_bytes(file: str) -> Iterator[io.BufferedReader]:
    """The bytes of ``file``, unpacked. Raises Unreadable when it is no data file at all, and one of READ_ERRORS."""
    with ExitStack() as stack:
        stream = stack.enter_context(open_file(file))
        head = _head(stream)
        for magic, unpack in _UNPACKERS.items():
            if head.startswith(magic):
                stream = stack.enter_context(io.BufferedReader(_Unpacked(unpack(stream), stream)))
                head = _head(stream)
        yield stream


def is_compressed(stream: io.BufferedReader) -> bool:
    return isinstance(stream.raw, _Unpacked)


def _head(stream: io.BufferedReader) -> bytes:
    head = stream.peek(_HEAD)[:_HEAD]
    start = head.removeprefix(_BYTE_ORDER_MARK).lstrip().lower()
    for impostor, what in _IMPOSTORS.items():
        if start.startswith(impostor):
            raise Unreadable(what)
    return head


# ----------------------------------------------------------------------------------------------------------- text
@contextmanager
def open_text(file: str, *, newline: str, code_pages: bool) -> Iterator[TextIO]:
    """The text of ``file``: UTF-8, or UTF-16 and UTF-32 with or without a mark.

    ``code_pages``: what is not UTF-8 and looks like a Western language in Windows-1252 is read as such. Other bytes
    that are not UTF-8 become lone surrogates, which the check of a text field refuses, so that only their row is lost.
    """
    encoding = encoding_of(file, code_pages=code_pages)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    with open_bytes(file) as stream, io.TextIOWrapper(stream, encoding, errors, newline) as text:
        yield text


def is_valid(text: str) -> bool:
    """Whether all of ``text`` could be decoded."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def encoding_of(file: str, *, code_pages: bool) -> str:
    """The encoding that ``open_text`` reads ``file`` in, by Python's name. Raises what ``open_bytes`` does."""
    with open_bytes(file) as stream:
        head = stream.peek(_HEAD)[:_HEAD]
        for magic, what in _BINARY.items():
            if head.startswith(magic):
                raise Unreadable(what)
        encoding = json.detect_encoding(head)
        if not encoding.startswith("utf-8"):
            return encoding
        if not code_pages or _is_utf8(stream):
            return "utf-8-sig"
    with open_bytes(file) as stream:
        return "cp1252" if _is_western(stream) else "utf-8-sig"


def _is_utf8(stream: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk := stream.read(_CHUNK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _is_western(stream: BinaryIO) -> bool:
    """Whether text that is not UTF-8 is surely Windows-1252: no line of it is UTF-8, and it has no unusual letters."""
    num_letters = num_foreign = 0
    for line in iter(lambda: stream.readline(_CHUNK), b""):
        text = line.decode("cp1252", errors="replace")
        foreign = [char for char in text if not char.isascii()]
        if foreign and (_is_utf8(io.BytesIO(line)) or not _WESTERN.issuperset(foreign)):
            return False
        num_foreign += sum(char.isalpha() for char in foreign)
        num_letters += sum(char.isalpha() for char in text)
    return num_foreign <= _MAX_WESTERN_SHARE * num_letters
