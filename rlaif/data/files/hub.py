"""Rows of a Hugging Face data set: ``hf:NAME[:CONFIG][@SPLIT]``, streamed.

NAME is that of the hub (``Anthropic/hh-rlhf``), which a folder of it may follow (``Anthropic/hh-rlhf/harmless-base``),
or a local directory. SPLIT is ``train`` if it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.config.source import HUB
from rlaif.data.files.arrow_rows import Budget, batch_rows
from rlaif.data.files.parquet_sizes import BATCH_ROWS
from rlaif.data.files.raw_rows import RawRow, Unreadable
from rlaif.errors import describe_error
from rlaif.places.paths import is_directory

HUB_GRAMMAR = f"{HUB}NAME[:CONFIG][@SPLIT][#ROWS]"

_SAVED = ("state.json", "dataset_dict.json")  #: what `datasets` writes next to a data set that it saves
_NAME = re.compile(r"(?P<name>[^:@#]+)(:(?P<config>[^:@#]+))?(@(?P<split>[^:@#]+))?")


@dataclass(frozen=True, kw_only=True)
class HubSource:
    name: str
    data_dir: str | None
    config: str | None
    split: str


def hub_source(source: str) -> HubSource:
    """What ``source`` names. Raises Unreadable."""
    place = source.removeprefix(HUB)
    match = _NAME.fullmatch(place)
    if place and is_directory(place):
        if any(Path(place, name).is_file() for name in _SAVED):
            raise Unreadable(f"was saved by `save_to_disk`, so it is a directory of files; name it without {HUB}")
        return HubSource(name=place, data_dir=None, config=None, split="train")
    if match is None:
        raise Unreadable(f"is not a data set's name; use {HUB_GRAMMAR}")
    name, data_dir = match["name"], None
    if not is_directory(name) and name.count("/") > 1:
        owner, repository, data_dir = name.split("/", 2)
        name = f"{owner}/{repository}"
    return HubSource(name=name, data_dir=data_dir, config=match["config"], split=match["split"] or "train")


def hub_rows(source: str, max_chars: int) -> Iterator[RawRow]:
    """The rows of a split, numbered from 1. Raises Unreadable."""
    wanted, number = hub_source(source), 0
    try:
        for batch in _stream(wanted):
            for row in batch_rows(batch, number + 1, max_chars, Budget()):
                yield row
                number += 1
    except Unreadable:
        raise
    except Exception as error:  # what `datasets` raises is not documented: one line, whatever it is
        choices = _choices(wanted) if isinstance(error, ValueError) and not number else None
        raise Unreadable(choices or f"cannot be read after row {number}: {describe_error(error)}") from error


def _stream(wanted: HubSource) -> Iterator[Any]:
    """Record batches: as Python objects, one value that cannot be decoded would end the stream."""
    import datasets

    rows = datasets.load_dataset(
        wanted.name, wanted.config, data_dir=wanted.data_dir, split=wanted.split, streaming=True
    )
    for table in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
        yield from table.to_batches(max_chunksize=BATCH_ROWS)


def _choices(wanted: HubSource) -> str | None:
    """What can be named instead, if ``wanted`` has no such configuration or split; None if that is not why."""
    import datasets

    place = f"{HUB}{wanted.name}" + (f"/{wanted.data_dir}" if wanted.data_dir else "")
    try:
        configs = datasets.get_dataset_config_names(wanted.name, data_dir=wanted.data_dir)
        if wanted.config is not None and wanted.config not in configs:
            return f"has no configuration {wanted.config}; choose {_any_of(f'{place}:{name}' for name in configs)}"
        if wanted.config is None and len(configs) > 1 and "default" not in configs:
            return f"has several configurations; choose {_any_of(f'{place}:{name}' for name in configs)}"
        splits = datasets.get_dataset_split_names(wanted.name, wanted.config, data_dir=wanted.data_dir)
    except Exception:  # then the first error says more
        return None
    if wanted.split in splits:
        return None
    place += f":{wanted.config}" if wanted.config else ""
    return f"has no split {wanted.split}; choose {_any_of(f'{place}@{name}' for name in splits)}"


def _any_of(names: Iterator[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
