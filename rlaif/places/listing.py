"""What is where: one file, what a directory holds, what a pattern matches. Nothing is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlaif.places.urls import NO_LISTINGS, Unreachable, ask, filesystem, has_listings, is_url

Kind = Literal["file", "directory", "link to a directory", "broken link", "other"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    name: str  #: as the user would write it
    kind: Kind
    size: int  #: bytes

    @property
    def base(self) -> str:
        return base_of(self.name)


class _Place(NamedTuple):
    """Where matching goes on: in a directory, with a part of the pattern."""

    folder: str
    num: int


def base_of(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def folder_of(name: str) -> str:
    return name.rstrip("/").rpartition("/")[0] if is_url(name) else str(Path(name).parent)


def join(folder: str, base: str) -> str:
    return f"{folder.rstrip('/')}/{base}" if is_url(folder) else str(Path(folder, base))


def relative(name: str, folder: str) -> str:
    """``name`` as seen from ``folder``."""
    return os.path.relpath(name, folder)


def common_folder(names: Iterable[str]) -> str:
    """The deepest directory that holds all of ``names``."""
    folders = [folder_of(name) for name in names]
    scheme, mark, _ = folders[0].partition("://")
    if not mark:
        return os.path.commonpath(folders)
    return f"{scheme}://{os.path.commonpath([folder.partition('://')[2] for folder in folders])}"


def entry_of(name: str) -> Entry | None:
    """What ``name`` is; None where there is nothing. A link is what it leads to. Raises OSError."""
    system = filesystem(name)
    try:
        return _entry(name, ask(name, lambda: system.info(name)))
    except FileNotFoundError:
        return Entry(name=name, kind="broken link", size=0) if os.path.lexists(name) else None
    except (NotADirectoryError, ValueError):  # a name that no file can have
        return None


def entries(folder: str) -> list[Entry]:
    """What a directory holds, sorted by name. Raises OSError where it cannot be listed."""
    system = filesystem(folder)
    itself = system._strip_protocol(folder).rstrip("/")
    found = []
    for info in ask(folder, lambda: system.ls(folder, detail=True)):
        name = join(folder, base_of(info["name"]))
        if info["name"].rstrip("/") != itself:
            found.append(_entry(name, _followed(name, info)))
        elif info["type"] == "directory":  # keys with `//` after its name
            found.append(Entry(name=f"{folder.rstrip('/')}//", kind="other", size=0))
    return sorted(found, key=lambda entry: entry.name)


def _followed(name: str, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts of what a link of this machine leads to."""
    if not info.get("islink"):
        return info
    try:
        facts = filesystem(name).info(name)
    except OSError:
        return {"type": "broken link"}
    return {**facts, "type": "link to a directory"} if facts["type"] == "directory" else facts


def _entry(name: str, info: Mapping[str, Any]) -> Entry:
    return Entry(name=name, kind=info["type"], size=info.get("size") or 0)


def matching(pattern: str) -> list[Entry]:
    """What a pattern matches, sorted by name: ``*``, ``?``, ``[...]`` and ``**`` as in the module `glob`.

    Raises OSError where a directory cannot be listed.
    """
    if not has_listings(pattern):
        raise Unreachable(NO_LISTINGS)
    scheme, mark, path = pattern.rpartition("://")
    root, parts = ("/", path.lstrip("/")) if path.startswith("/") else (".", path)
    if mark:
        bucket, _, parts = path.partition("/")
        root = f"{scheme}{mark}{bucket}"
    found = {entry.name: entry for entry in _expanded(root, [part for part in parts.split("/") if part])}
    return [found[name] for name in sorted(found)]


def _expanded(root: str, parts: list[str]) -> Iterator[Entry]:
    """What is at ``parts`` below ``root``. Each directory is looked at once for each part, however many ways lead to
    it: with several ``**``, there are very many."""
    waiting = [_Place(root, 0)] if parts else []
    seen = set(waiting)
    while waiting:
        for found in _matches(*waiting.pop(), parts):
            if isinstance(found, Entry):
                yield found
            elif found not in seen:
                seen.add(found)
                waiting.append(found)


def _matches(folder: str, num: int, parts: list[str]) -> Iterator[Entry | _Place]:
    """What part ``num`` matches in a directory: what is found, or where the next part goes on."""
    part, is_last = parts[num], num == len(parts) - 1
    if not glob.has_magic(part):
        name = join(folder, part)
        if not is_last:
            yield _Place(name, num + 1)
        elif (entry := entry_of(name)) is not None:
            yield entry
        return
    if part == "**" and not is_last:
        yield _Place(folder, num + 1)
    for entry in _listed(folder):
        is_wanted = not entry.base.startswith(".") or part.startswith(".")
        if is_wanted and part == "**":
            if entry.kind == "directory":
                yield _Place(entry.name, num)
            elif is_last:
                yield entry
        elif is_wanted and fnmatchcase(entry.base, part):
            if is_last:
                yield entry
            elif entry.kind in ("directory", "link to a directory"):
                yield _Place(entry.name, num + 1)


def _listed(folder: str) -> list[Entry]:
    try:
        return entries(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
