"""Checkpoints of a trained model, which any number of ranks can go on from, under any ZeRO stage.

Each rank writes the stretches that it owns, float32 weights and both moments of Adam, into safetensors files of its
own; where each stretch begins stands in the file's metadata. A rank that goes on reads the stretches that it owns now,
out of whichever files hold them. The numbers are those that were written, so equal ranks go on exactly.

Not DeepSpeed's own checkpoints: those are pickles, which may run code, and belong to one number of ranks until an
offline script has rewritten them (Universal Checkpointing, arXiv:2406.18820). No process reads or holds more than its
own stretches here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlaif.errors import ModelError
from rlaif.jobs import Rank
from rlaif.training.collectives import wait_for_all
from rlaif.training.owned import Owned, Stretch

STEPS_FILE = "steps.json"
FILE_BYTES = 2**30  #: a file is closed when it holds as much; what is written is copied to host memory before


@dataclass(frozen=True, kw_only=True)
class Steps:
    """``taken``: optimizer steps, skipped ones included; ``adam``: without those."""

    taken: int
    adam: int


def write_checkpoint(path: Path, owned: Owned, steps_taken: int, rank: Rank, file_bytes: int = FILE_BYTES) -> None:
    """Every rank must call it; returns on all of them when every file is there. ``path`` must be empty or missing."""
    path.mkdir(parents=True, exist_ok=True)
    # Stage 0 leaves everything to everyone.
    mine = owned.stretches() if owned.is_partitioned or rank.index == 0 else iter(())
    for number, stretches in enumerate(_files(mine, file_bytes)):
        _write(path / f"rank-{rank.index:05d}-{number:05d}.safetensors", stretches)
        rank.beat()
    wait_for_all(rank)
    if rank.index == 0:  # last, so that a checkpoint with this file is whole
        (path / STEPS_FILE).write_text(json.dumps({"taken": steps_taken, "adam": owned.adam_steps}))
    wait_for_all(rank)


def _files(stretches: Iterator[Stretch], file_bytes: int) -> Iterator[list[Stretch]]:
    file: list[Stretch] = []
    for stretch in stretches:
        file.append(stretch)
        if sum(value.nbytes for other in file for value in other.values.values()) >= file_bytes:
            yield file
            file = []
    if file:
        yield file


def _write(path: Path, stretches: list[Stretch]) -> None:
    tensors = {
        f"{key}/{stretch.name}": value.to("cpu", copy=True)
        for stretch in stretches
        for key, value in stretch.values.items()
    }
    places = {stretch.name: [stretch.start, stretch.end, stretch.of] for stretch in stretches}
    save_file(tensors, path, metadata={"places": json.dumps(places)})


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
