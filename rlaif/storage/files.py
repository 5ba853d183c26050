"""Files that are whole or absent, and errors that say when the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif.errors import StorageError, UserError
from rlaif.places.writing import make_directory, take_place

FULL_BYTES = 64 * 1024  #: with less free space than this, a disk counts as full
#: What the system and SQLite say when there is no room.
_NO_ROOM = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full")


def write_atomically(path: Path, text: str, *, private: bool = False) -> None:
    """Write ``text`` so that a reader finds the old content or the new, never a part, also after a power failure.
    ``private``: for this user's eyes only."""
    make_directory(path.parent)
    unfinished = path.with_name(f".{path.name}.{time.monotonic_ns()}")
    try:
        if private:
            unfinished.touch(mode=0o600, exist_ok=False)
        unfinished.write_text(text, encoding="utf-8")
        take_place(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def says_full(text: str) -> bool:
    """Whether an error's text says that a disk is full or a quota used up."""
    return any(phrase in text for phrase in _NO_ROOM)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raises StorageError for anything that fails inside because the disk of the run directory ``path`` is full, or
    the quota on it used up.

    Libraries report that in many ways (OSError, RuntimeError, errors of their own, groups of them), so the free space
    is checked as well.
    """
    try:
        yield
    except (UserError, StorageError):
        raise
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        if not says_full(text) and not _is_full(path):
            raise
        message = f"{path}: the disk is full; free some of it and run the same command again to resume"
        raise StorageError(message) from error


def _is_full(path: Path) -> bool:
    return path.exists() and shutil.disk_usage(path).free <= FULL_BYTES
