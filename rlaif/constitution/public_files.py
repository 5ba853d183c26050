"""Constitutions of others, in files: which shape a file has, and what several files are together.

Every principle gets the category ``harm_avoidance`` (guidelines apart), weight 1, and its file as source. ``rlaif
constitution import`` writes YAML in which all of this can be corrected.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.constitution.public_json import is_ours, json_principles, read_json, title_of
from rlaif.constitution.public_lists import markdown_principles, table_principles, text_principles
from rlaif.constitution.public_texts import PrincipleTree, with_unique_ids
from rlaif.errors import ConfigError

LISTS: Mapping[str, Callable[[Path, str], Iterator[PrincipleTree]]] = {
    ".csv": table_principles,
    ".tsv": table_principles,
    ".md": markdown_principles,
    ".markdown": markdown_principles,
    ".txt": text_principles,
}
PUBLIC_SUFFIXES = (".json", *LISTS)


def tree_of(files: Sequence[Path]) -> Any:
    """The constitution in one or more files, as its YAML would hold it; not validated.

    Raises ConfigError naming file and key, row or item.
    """
    contents = {file: _read(file) for file in files}
    if len(files) == 1 and is_ours(contents[files[0]]):
        return contents[files[0]]
    title = title_of(contents[files[0]]) if len(files) == 1 else None
    name, version = title or ("_".join(file.stem for file in files), "1")
    principles = list(with_unique_ids(one for file in files for one in _principles(file, contents[file])))
    return {"name": name, "version": version, "principles": principles}


def _read(file: Path) -> Any:
    """The text of a file, and of a JSON file its content."""
    suffix = file.suffix.lower()
    if suffix not in PUBLIC_SUFFIXES:
        raise ConfigError(f"{file}: unknown kind of file; give one of {', '.join(PUBLIC_SUFFIXES)}")
    text = _text(file)
    return read_json(file, text) if suffix == ".json" else text


def _text(file: Path) -> str:
    try:
        raw = file.read_bytes()
        encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None


def _principles(file: Path, content: Any) -> Iterator[PrincipleTree]:
    reader = LISTS.get(file.suffix.lower())
    principles = list(reader(file, content) if reader else json_principles(file, content))
    if not principles:
        raise ConfigError(f"{file}: holds no principles")
    yield from principles
