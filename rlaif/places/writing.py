"""Files that arrive whole or not at all: on this machine, or in object storage."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif.errors import DataError
from rlaif.places.listing import base_of
from rlaif.places.urls import ask, check_place, filesystem, is_url


def settle(path: Path) -> None:
    """Returns once the disk holds what has been written to a file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some file systems cannot do this for directories
            raise
    finally:
        os.close(descriptor)


def settle_tree(directory: Path) -> None:
    """Returns once the disk holds a directory with all that is in it."""
    for path in directory.rglob("*"):
        settle(path)
    settle(directory)
    settle(directory.parent)


def make_directory(path: Path) -> None:
    """Make a directory and those above it; the disk holds their names when this returns."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        settle(directory.parent)


def take_place(unfinished: Path, path: Path) -> None:
    """Let ``unfinished`` take the place of ``path``. Its content is on disk before its name is."""
    settle(unfinished)
    unfinished.replace(path)
    settle(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a large file, which takes the place of ``path`` unless an error is raised.

    What an interrupted attempt leaves behind is overwritten by the next one, so a path has one writer at a time.
    """
    make_directory(path.parent)
    unfinished = path.with_name(f".{path.name}.unfinished")
    yield unfinished
    take_place(unfinished, path)


@contextmanager
def arriving(place: str) -> Iterator[Path]:
    """Where to write a file that becomes ``place``, a path or a URL, unless an error is raised.

    Stores show an object once all of it has come. Raises DataError where nothing can be written.
    """
    check_place(place)
    try:
        if not is_url(place):
            with replacing(Path(place)) as unfinished:
                yield unfinished
            return
        with tempfile.TemporaryDirectory() as directory:
            unfinished = Path(directory, base_of(place))
            yield unfinished
            system = filesystem(place)
            ask(place, lambda: system.put_file(str(unfinished), place))
    except OSError as error:
        raise DataError(f"{place}: cannot be written: {error.strerror or error}") from error


def copy_file(path: Path, place: str) -> None:
    """Raises DataError where ``place`` cannot be written."""
    with arriving(place) as unfinished:
        shutil.copyfile(path, unfinished)
