"""Turns to start on a GPU that several processes share: one at a time on each card.

vLLM sizes its KV cache by how much free memory *of the whole device* went while it loaded and made a trial pass. A
neighbour that loads meanwhile is billed to it, and one that frees memory fails its assertion. So whoever has only a
share of a card, engine or trainer, waits for its turn before it touches the card and keeps it until it has loaded.

A turn is a lock (``flock``) on a file of this machine, one for each card. The kernel releases it when its holder dies,
however it dies; it needs no server, and holds between the actors of different runs of one user as well.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlaif.errors import EngineError

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"  #: Ray sets it to the cards of an actor


@dataclass(frozen=True, kw_only=True)
class StartTurn:
    """Who started when on which card; seconds of the machine's monotonic clock, which its processes share."""

    who: str
    card: str
    began: float
    ended: float


_turns: list[StartTurn] = []  # of this process
_num_waiting = 0


def waits_for_turn() -> bool:
    """Whether this process waits for its turn, during which it is silent and yet not hung."""
    return _num_waiting > 0


def turns_taken() -> tuple[StartTurn, ...]:
    """The turns that this process has had."""
    return tuple(_turns)


@contextmanager
def turn_to_start(who: str, gpus: float) -> Iterator[None]:
    """Wait until nobody else starts on this process's card, and keep others from it within the ``with`` block.

    ``gpus``: what ``who`` has of a GPU. Without a GPU, and with whole ones, there is nobody to wait for. Raises
    EngineError when the lock's file cannot be made.
    """
    if not 0 < gpus < 1:
        yield
        return
    card = card_of_process()
    lock = _open_lock(card)
    try:
        _wait_for(lock)
        began = time.monotonic()
        try:
            yield
        finally:
            _turns.append(StartTurn(who=who, card=card, began=began, ended=time.monotonic()))
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing alone would not do if a child process had inherited the file
    finally:
        os.close(lock)


def _wait_for(lock: int) -> None:
    global _num_waiting
    _num_waiting += 1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        _num_waiting -= 1


def card_of_process() -> str:
    """The card of a process that has a share of one: the first that it can see."""
    return os.environ.get(VISIBLE_DEVICES, "").split(",")[0].strip() or "0"


def _open_lock(card: str) -> int:
    directory = Path(tempfile.gettempdir()) / f"rlaif-{os.geteuid()}"
    name = "".join(character if character.isalnum() or character == "-" else "_" for character in card)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
            raise PermissionError("it is not this user's own directory")  # whose owner could keep all turns
        return os.open(directory / f"gpu-{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineError(
            f"{directory}: locks for GPUs that are shared cannot be made there: {error}; set TMPDIR to a local "
            f"directory that this user can write"
        ) from error
