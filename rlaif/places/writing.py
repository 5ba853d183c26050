"""Files that arrive whole or not at all: on this machine, or in object storage."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif.errors import DataError
from rlaif.places.listing import base_of
from rlaif.places.urls import ask, check_place, filesystem, is_url


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write a large file, which takes the place of ``path`` unless an error is raised.

    What an interrupted attempt leaves behind is overwritten by the next one, so a path has one writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


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
