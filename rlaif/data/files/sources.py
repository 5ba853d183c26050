"""Which files a source means: a file, a directory, a pattern (``part-*.parquet``) or ``hf:NAME``, with ``#ROWS``.

All but ``hf:NAME`` may be on this machine or behind a URL (``rlaif.places``).

A directory holds more than data. What is not read is known (``passed_over``), so that whoever reads can say it.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rlaif.config.source import HUB, is_data_set
from rlaif.config.strict_yaml import listed, parse_yaml
from rlaif.data.files.formats import FILE_KINDS, has_format
from rlaif.data.files.hub import hub_source
from rlaif.data.files.raw_rows import Unreadable
from rlaif.errors import DataError, format_value
from rlaif.places.listing import Entry, base_of, common_folder, entries, entry_of, folder_of, matching, relative
from rlaif.places.urls import check_url, is_url

_ROWS = re.compile(r"(?P<place>.+?)#((?P<first>\d{1,18})-)?(?P<num>\d{1,18})", re.DOTALL)
#: What `datasets` writes next to the rows of a saved data set; ``cache-*`` are rows again, made from them.
_ABOUT_DATA = re.compile(r"dataset_infos?\.json|dataset_dict\.json|state\.json|cache-.*\.arrow")
_SPLITS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "evaluation",
    "evaluation": "evaluation",
}
_CARD_HEAD = re.compile(r"\ufeff?---\r?\n(.*?)\n---", re.DOTALL)
_MAX_CARD_CHARS = 2**20
_MAX_NAMED = 10
_UNKNOWN = "unknown kind of file"


@dataclass(frozen=True, kw_only=True)
class RowChoice:
    """Rows ``first`` to ``num`` of a source; without ``first``, ``num`` of them by lot."""

    first: int | None
    num: int


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """What is in a directory. ``others``: what is not read, and why."""

    files: list[Entry] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)


def row_choice(source: str) -> tuple[str, RowChoice | None]:
    """A source without its ``#ROWS``, and what they say. A file of this machine whose name ends like that is that file.

    Raises DataError, for a URL that cannot be used as well.
    """
    if printable(source) != source:
        raise DataError(f"{printable(source)}: the file's name is not UTF-8; rename it")
    if is_url(source):
        check_url(source)
    match = _ROWS.fullmatch(source)
    if match is None or os.path.lexists(source):
        return source, None
    first, num = match["first"], int(match["num"])
    if num < int(first or 1) or first == "0":
        raise DataError(f"{printable(source)}: #ROWS is #NUMBER (drawn by lot) or #FIRST-LAST, counted from 1")
    return match["place"], RowChoice(first=None if first is None else int(first), num=num)


def files_of(source: str) -> list[str]:
    """The files of a source in a fixed order, named as the user named them; ``hf:NAME`` is returned as it is.

    Raises DataError when there is none, when one cannot be named, and when they are of several splits.
    """
    place, _ = row_choice(source)
    if is_data_set(place):
        _check_hub_name(place)
        return [place]
    try:
        files = _files(place)
    except OSError as error:
        raise DataError(f"{printable(place)}: cannot be read: {error.strerror or error}") from error
    for file in files:
        if printable(file) != file:
            raise DataError(f"{printable(file)}: the file's name is not UTF-8; rename it")
    return files


def passed_over(source: str) -> list[str]:
    """What files_of does not return of a directory, each as ``NAME (why)``; first what might be data."""
    place, _ = row_choice(source)
    if is_data_set(place):
        return []
    try:
        entry = entry_of(place)
        return _others(place, _contents(place)) if entry and entry.kind == "directory" else []
    except OSError as error:
        raise DataError(f"{printable(place)}: cannot be read: {error.strerror or error}") from error


def _others(place: str, contents: _Contents) -> list[str]:
    others = contents.others
    names = sorted(others, key=lambda name: (others[name] != _UNKNOWN, name))
    return [f"{printable(relative(name, place))} ({others[name]})" for name in names]


def printable(name: str) -> str:
    """``name`` with the bytes that are not UTF-8 written out."""
    try:
        written = os.fsencode(name)
    except UnicodeEncodeError:  # no bytes of any file's name
        written = name.encode("utf-8", "backslashreplace")
    return written.decode("utf-8", "backslashreplace")


def _check_hub_name(source: str) -> None:
    try:
        hub_source(source)
    except Unreadable as error:
        raise DataError(f"{printable(source)}: {error}") from error


def _files(place: str) -> list[str]:
    entry = entry_of(place)
    if entry is not None and entry.kind == "directory":
        contents = _contents(place)
        if not contents.files:
            raise DataError(f"{printable(place)}: {_no_files(_others(place, contents))}")
        files = [file.name for file in contents.files]
        if not is_url(place):
            _check_configurations(Path(place))
        _check_splits(place, files)
        return files
    found = matching(place) if entry is None and glob.has_magic(place) else [entry] if entry else []
    files = [file.name for file in found if file.kind == "file"]
    if not files:
        raise DataError(f"{printable(place)}: {'not a file' if entry else 'no such file or directory'}")
    for file in files:
        if not has_format(file):
            raise DataError(f"{printable(file)}: unknown kind of file; use one of {FILE_KINDS}")
    if len(files) > 1:
        _check_splits(common_folder(files), files)
    return files


def _no_files(others: Sequence[str]) -> str:
    return f"no data files in this directory ({FILE_KINDS})" + (f"; passed over {named(others)}" if others else "")


def named(names: Sequence[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    few = ", ".join(names[:_MAX_NAMED])
    return few if len(names) <= _MAX_NAMED else f"{few} and {len(names) - _MAX_NAMED} more"


# ----------------------------------------------------------------------------------------------------- directories
def _contents(directory: str) -> _Contents:
    """The files in ``directory`` and below, sorted. Raises OSError where a directory cannot be listed."""
    contents = _Contents()
    folders = [directory]
    while folders:
        for entry in entries(folders.pop()):
            if reason := _no_folder(entry) if entry.kind in ("directory", "link to a directory") else _no_data(entry):
                contents.others[entry.name] = reason
            elif entry.kind == "directory":
                folders.append(entry.name)
            else:
                contents.files.append(entry)
    contents.files.sort(key=lambda file: file.name)
    _leave_out_empty(contents)
    return contents


def _no_folder(folder: Entry) -> str | None:
    """Why a directory in a directory is not read; None when it is."""
    if folder.base.startswith("."):
        return "hidden"
    if folder.kind != "directory":
        return folder.kind
    return "not data" if folder.base.startswith("_") else None  # _temporary, _delta_log


def _no_data(file: Entry) -> str | None:
    """Why a file in a directory is not read; None when it is."""
    name = file.base
    if name.startswith("."):
        return "hidden"
    if file.kind != "file":
        return file.kind if file.kind == "broken link" else "not a file"
    if _ABOUT_DATA.fullmatch(name) or name.startswith(("_SUCCESS", "_metadata", "_common_metadata")):
        return "not data"
    if has_format(name):
        return None
    return "not data" if name.lower().endswith(".md") or name.upper().startswith("LICENSE") else _UNKNOWN


def _leave_out_empty(contents: _Contents) -> None:
    """Leave out files without a byte, unless all are: jobs write a part for each worker, with or without rows."""
    full = [file for file in contents.files if file.size]
    if full:
        contents.others.update({file.name: "empty" for file in contents.files if not file.size})
        contents.files[:] = full


# --------------------------------------------------------------------------------------- configurations and splits
def _check_configurations(directory: Path) -> None:
    """Raises DataError when the card of a data set says that its files are several data sets."""
    names = _configurations(directory / "README.md")
    if len(names) > 1:
        ways = " or ".join(f"{HUB}{directory}:{format_value(name)}" for name in names[:_MAX_NAMED])
        raise DataError(
            f"{printable(str(directory))}: its README.md names the configurations {listed(names)}, which are never "
            f"mixed; name one: {printable(ways)}"
        )


def _configurations(card: Path) -> list[str]:
    """The names under ``configs`` in the head of a data set's card."""
    try:
        with card.open(encoding="utf-8", errors="replace") as text:
            head = _CARD_HEAD.match(text.read(_MAX_CARD_CHARS))
        values = parse_yaml(head[1]) if head else None
    except (OSError, yaml.YAMLError):  # a directory need not have a card
        return []
    configs = values.get("configs") if isinstance(values, dict) else None
    several = configs if isinstance(configs, list) else []
    names = [config.get("config_name") for config in several if isinstance(config, dict)]
    return [str(name) for name in names if isinstance(name, str | int | float)]


# ---------------------------------------------------------------------------------------------------------- splits
def _check_splits(directory: str, files: Sequence[str]) -> None:
    splits: dict[str, list[str]] = {}
    for file in files:
        if split := _split(relative(file, directory)):
            splits.setdefault(split, []).append(file)
    if len(splits) > 1:
        ways = " or ".join(_way_to_name(directory, splits[split]) for split in sorted(splits, reverse=True))
        raise DataError(
            f"{printable(directory)}: holds the splits {' and '.join(sorted(splits, reverse=True))}, "
            f"which are never mixed; name one: {printable(ways)}"
        )


def _split(path: str) -> str | None:
    """The split that a path names: by a directory, else by a word of the file's name."""
    *folders, name = path.split("/")
    words = next((words for words in map(_words, [*folders, name]) if any(word in _SPLITS for word in words)), [])
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())


def _way_to_name(directory: str, files: Sequence[str]) -> str:
    """A source that means exactly ``files``, which are one split of a directory."""
    folder = common_folder(files)
    if folder != directory.rstrip("/") and _means(folder, files):
        return folder
    if len(files) == 1:
        return files[0]
    word = next((word for word in _words(base_of(files[0])) if word in _SPLITS), "")
    below = "**/" if any(folder_of(file) != folder for file in files) else ""
    pattern = f"{glob.escape(folder)}/{below}*{word}*"
    return pattern if _means(pattern, files) else files[0]


def _means(source: str, files: Sequence[str]) -> bool:
    try:
        return files_of(source) == list(files)
    except DataError:
        return False
