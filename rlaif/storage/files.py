"""Files that are whole or absent, and errors that say when the disk is full."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif.errors import StorageError, UserError

FULL_BYTES = 64 * 1024  #: with less free space than this, a disk counts as full


def write_atomically(path: Path, text: str, *, private: bool = False) -> None:
    """Write ``text`` so that a reader finds the old content or the new, never a part. ``private``: for this user's
    eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{time.monotonic_ns()}")
    if private:
        unfinished.touch(mode=0o600, exist_ok=False)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raises StorageError for anything that fails inside because the disk of the run directory ``path`` is full.

    Libraries report that in many ways (OSError, RuntimeError, errors of their own, groups of them), so the free space
    is checked as well.
    """
    try:
        yield
    except (UserError, StorageError):
        raise
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        if "No space left on device" not in text and shutil.disk_usage(path).free > FULL_BYTES:
            raise
        message = f"{path}: the disk is full; free some of it and run the same command again to resume"
        raise StorageError(message) from error
