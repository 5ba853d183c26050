"""Tables: rows that share a header, and cells that are converted when a reader asks for them."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.data.files.raw_rows import Unreadable


@dataclass(frozen=True, kw_only=True)
class Header:
    names: tuple[str, ...]  #: one of each column that has a name
    places: Mapping[str, int]  #: of each column, under its name as it is written and in lower case


def header_of(columns: Sequence[str]) -> Header:
    """``Prompt`` and `` prompt`` are both ``prompt``, unless there are two of them. Raises Unreadable for a name that
    is there twice: which of the columns is meant cannot be told."""
    written = [(name.strip(), place) for place, name in enumerate(columns) if name.strip()]
    counts = Counter(name for name, _ in written)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise Unreadable(f"column `{repeated[0]}` is there {counts[repeated[0]]} times; keep one, or rename them")
    folded = Counter(name.casefold() for name in counts)
    names = {place: name.casefold() if folded[name.casefold()] == 1 else name for name, place in written}
    places = {name: place for place, name in names.items()} | dict(written)
    return Header(names=tuple(names.values()), places=places)


class Cells(Mapping[str, Any]):
    """A row of a table. An empty cell is absent: where tables are united, each row has the columns of all."""

    def __init__(self, header: Header) -> None:
        self._header = header

    @abstractmethod
    def has(self, place: int) -> bool: ...

    @abstractmethod
    def value(self, place: int) -> Any:
        """Raises Unreadable."""

    def __getitem__(self, name: str) -> Any:
        place = self._header.places[name]
        if not self.has(place):
            raise KeyError(name)
        return self.value(place)

    def __contains__(self, name: object) -> bool:
        return name in self._header.places and self.has(self._header.places[str(name)])

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._header.names if self.has(self._header.places[name]))

    def __len__(self) -> int:
        return sum(1 for _ in self)
