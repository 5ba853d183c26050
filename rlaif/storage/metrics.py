"""``metrics.jsonl`` and ``events.jsonl``: append-only logs, one JSON object a line.

Metric keys are ``stage/group/name``, e.g. ``reinforce/kl/sequence_mean``; a line holds the metrics of one moment:
``time, stage, index, metrics``. ``index`` counts what the stage repeats: batches (``reinforce``), versions of the
preference model (``refresh``); it is null where lines are only counted, one for each optimizer step (SFT, PM), and for
metrics of a stage as a whole. Logs of earlier runs call it ``step``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif.errors import StorageError, redacted
from rlaif.places.writing import replacing, settle
from rlaif.storage.damage import place_aside

_logger = logging.getLogger(__name__)
_BLOCK_BYTES = 64 * 1024  #: read at once while looking for the last line break


class _Log:
    """A log with one writer. Raises StorageError when it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            drop_half_line(path)
        except OSError as error:
            raise StorageError(f"{path}: cannot write: {error.strerror}") from error

    def settle(self) -> None:
        """Returns once the disk holds what has been written."""
        if self._path.exists():
            settle(self._path)

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise StorageError(f"{self._path}: cannot write: {error.strerror}") from error


def drop_half_line(path: Path) -> int:
    """Drop the partial line that a full disk or a killed process left at the end of a log; returns its bytes."""
    if not path.is_file() or not path.stat().st_size:
        return 0
    with path.open("rb+") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK_BYTES)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
    return size - end


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, if there is one. What is not a JSON object is left out; more than the half line at the end,
    which a crash or a run in progress leaves, is said in a warning."""
    if not path.is_file():
        return
    num_unreadable = 0
    with path.open("rb") as lines:
        for line in lines:
            if (content := _parsed(line)) is not None:
                yield content
            elif line.endswith(b"\n"):
                num_unreadable += 1
    if num_unreadable:
        _logger.warning("%s: %d unreadable lines are left out", path, num_unreadable)


def drop_unreadable(path: Path, is_whole: Callable[[dict[str, Any]], bool]) -> int:
    """Drop the lines of a log that are no JSON object or not ``is_whole``, and keep them beside it; returns their
    number."""

    def is_kept(line: bytes) -> bool:
        content = _parsed(line)
        return content is not None and is_whole(content) and line.endswith(b"\n")

    if not path.is_file():
        return 0
    with path.open("rb") as lines:
        num = sum(not is_kept(line) for line in lines)
    if not num:
        return 0
    with (
        path.open("rb") as lines,
        replacing(path) as whole,
        whole.open("wb") as kept,
        replacing(place_aside(path)) as other,
        other.open("wb") as dropped,
    ):
        for line in lines:
            (kept if is_kept(line) else dropped).write(line)
    return num


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None for what is not a JSON object."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


class MetricsLog(_Log):
    def write(self, stage: str, metrics: Mapping[str, float], index: int | None = None) -> None:
        # JSON has no NaN: a metric that does not exist (an accuracy over no rows) is null.
        clean = {k: (float(v) if math.isfinite(v) else None) for k, v in metrics.items()}
        self._append({"time": time.time(), "stage": stage, "index": index, "metrics": clean})


class EventLog(_Log):
    def write(self, event: str, **facts: Any) -> None:
        said = {name: redacted(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        self._append({"time": time.time(), "event": event, **said})
