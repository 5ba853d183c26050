"""Prompts on disk, one in memory at a time: reinforcement and evaluation draw from all of them, perhaps millions."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlaif.records import Prompt
from rlaif.storage.record_schema import from_json, to_json


class KeptPrompts:
    """A sequence of prompts in a file of ``directory`` that has no name, so that nothing outlives the process. In
    memory, a prompt takes 8 bytes: where it begins."""

    def __init__(self, prompts: Iterable[Prompt], directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  # closed with the sequence
        weakref.finalize(self, self._file.close)
        self._begins = array("q", [0])
        for prompt in prompts:
            self._begins.append(self._begins[-1] + self._file.write(to_json(prompt)))
        self._file.flush()

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, index: int) -> Prompt:
        """Raises IndexError outside 0 .. len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        begin, end = self._begins[index : index + 2]
        self._file.seek(begin)
        return from_json(Prompt, self._file.read(end - begin))

    def __iter__(self) -> Iterator[Prompt]:
        return (self[index] for index in range(len(self)))
