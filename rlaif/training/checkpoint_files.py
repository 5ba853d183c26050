"""Checkpoints of a trained model, which any number of ranks can go on from, under any ZeRO stage.

Each rank writes the stretches that it owns, float32 weights and both moments of Adam, into safetensors files of its
own; where each stretch begins stands in the file's metadata. A rank that goes on reads the stretches that it owns now,
out of whichever files hold them. The numbers are those that were written, so equal ranks go on exactly.

Learning may go on while a checkpoint is written: ranks copy their stretches to host memory, and threads write the
copies.

Not DeepSpeed's own checkpoints: those are pickles, which may run code, and belong to one number of ranks until an
offline script has rewritten them (Universal Checkpointing, arXiv:2406.18820). No process reads or holds more than its
own stretches here.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlaif.errors import ModelError
from rlaif.jobs import Rank
from rlaif.training.collectives import wait_for_all
from rlaif.training.owned import Owned, Stretch

STEPS_FILE = "steps.json"
FILE_BYTES = 2**30  #: a file is closed when it holds as much; then its copy is let go


@dataclass(frozen=True, kw_only=True)
class Steps:
    """``taken``: optimizer steps, skipped ones included; ``adam``: without those."""

    taken: int
    adam: int


class CheckpointWriter:
    """One rank's part of a checkpoint. Every rank must make one, with the same ``path``, which must be empty or missing
    or hold what was left of the same checkpoint, and must finish it."""

    def __init__(self, path: Path, owned: Owned, steps_taken: int, rank: Rank, in_background: bool) -> None:
        """Returns when everything is in host memory, 12 bytes for each number that the rank owns; or, unless
        ``in_background``, in the files."""
        path.mkdir(parents=True, exist_ok=True)
        self._path, self._rank = path, rank
        self._steps = Steps(taken=steps_taken, adam=owned.adam_steps)
        # Stage 0 leaves everything to everyone.
        mine = owned.stretches() if owned.is_partitioned or rank.index == 0 else iter(())
        copies: Iterator[_File] = (_copy(stretches, rank) for stretches in _files(mine, FILE_BYTES))
        if in_background:
            copies = _emptied(deque(copies))
        executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = executor.submit(self._write, copies)
        executor.shutdown(wait=not in_background)

    def _write(self, copies: Iterator[_File]) -> None:
        number = 0
        while self._write_next(number, copies):
            number += 1

    def _write_next(self, number: int, copies: Iterator[_File]) -> bool:
        """A function of its own, so that one copy is let go before the next is made. False: there are no more."""
        file = next(copies, None)
        if file is None:
            return False
        path = self._path / f"rank-{self._rank.index:05d}-{number:05d}.safetensors"
        save_file(file.tensors, path, metadata={"places": json.dumps(file.places)})
        self._rank.beat()
        return True

    def is_written(self) -> bool:
        """Whether this rank's files are there. Raises what writing them raised."""
        if not self._writing.done():
            return False
        self._writing.result()
        return True

    def finish(self) -> None:
        """Returns on all ranks when every file of every rank is there. Raises what writing this rank's raised."""
        self._writing.result()
        wait_for_all(self._rank)
        if self._rank.index == 0:  # last, so that a checkpoint with this file is whole
            (self._path / STEPS_FILE).write_text(json.dumps(asdict(self._steps)))
        wait_for_all(self._rank)


def _emptied(copies: deque[_File]) -> Iterator[_File]:
    """Each copy, and then nobody holds it any longer."""
    while copies:
        yield copies.popleft()


@dataclass(frozen=True, kw_only=True)
class _File:
    """What a file will hold. ``places``: where each stretch begins and ends, and the numbers of its whole parameter."""

    tensors: dict[str, Tensor]
    places: dict[str, list[int]]


def _files(stretches: Iterator[Stretch], file_bytes: int) -> Iterator[list[Stretch]]:
    file: list[Stretch] = []
    for stretch in stretches:
        file.append(stretch)
        if sum(value.nbytes for other in file for value in other.values.values()) >= file_bytes:
            yield file
            file = []
    if file:
        yield file


def _copy(stretches: list[Stretch], rank: Rank) -> _File:
    tensors = {
        f"{key}/{stretch.name}": value.to("cpu", copy=True)
        for stretch in stretches
        for key, value in stretch.values.items()
    }
    rank.beat()
    return _File(tensors=tensors, places={s.name: [s.start, s.end, s.of] for s in stretches})


def read_checkpoint(path: Path, owned: Owned, rank: Rank) -> Steps:
    """Fill the stretches that are owned now, and spread them; every rank must call it.

    Raises ModelError when ``path`` holds no whole checkpoint, or that of another model.
    """
    try:
        steps = Steps(**json.loads((path / STEPS_FILE).read_text()))
        places = _places(path)
        for stretch in owned.stretches():
            _fill(stretch, places.get(stretch.name, []), path)
            rank.beat()
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{path}: is not a whole checkpoint: {error}") from error
    owned.adam_steps = steps.adam
    owned.spread()
    return steps


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a written stretch is."""

    file: Path
    start: int
    end: int
    of: int


def _places(path: Path) -> dict[str, list[_Place]]:
    found: dict[str, list[_Place]] = {}
    for file in sorted(path.glob("rank-*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name, (start, end, of) in json.loads((opened.metadata() or {})["places"]).items():
                found.setdefault(name, []).append(_Place(file=file, start=start, end=end, of=of))
    return found


def _fill(stretch: Stretch, places: list[_Place], path: Path) -> None:
    filled = 0
    for place in places:
        if place.of != stretch.of:
            raise ModelError(f"{path}: {stretch.name} has {place.of} numbers there and {stretch.of} in the model")
        start, end = max(stretch.start, place.start), min(stretch.end, place.end)
        if start < end:
            with safe_open(place.file, framework="pt") as file:
                for key, value in stretch.values.items():
                    found = file.get_slice(f"{key}/{stretch.name}")[start - place.start : end - place.start]
                    value[start - stretch.start : end - stretch.start].copy_(found)
            filled += end - start
    if filled != stretch.end - stretch.start:
        missing = stretch.end - stretch.start - filled
        raise ModelError(f"{path}: is not a whole checkpoint: {missing} numbers of {stretch.name} are missing")
