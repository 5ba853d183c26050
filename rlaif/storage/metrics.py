"""``metrics.jsonl`` and ``events.jsonl``: append-only logs, one JSON object a line.

Metric keys are ``stage/group/name``, e.g. ``reinforce/kl/sequence_mean``; a line holds the metrics of one moment:
``time, stage, index, metrics``. ``index`` counts what the stage repeats: batches (``reinforce``), versions of the
preference model (``refresh``); it is null where lines are only counted, one for each optimizer step (SFT, PM), and for
metrics of a stage as a whole. Logs of earlier runs call it ``step``.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.errors import StorageError, redacted
from rlaif.places.writing import settle

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


class MetricsLog(_Log):
    def write(self, stage: str, metrics: Mapping[str, float], index: int | None = None) -> None:
        # JSON has no NaN: a metric that does not exist (an accuracy over no rows) is null.
        clean = {k: (float(v) if math.isfinite(v) else None) for k, v in metrics.items()}
        self._append({"time": time.time(), "stage": stage, "index": index, "metrics": clean})


class EventLog(_Log):
    def write(self, event: str, **facts: Any) -> None:
        said = {name: redacted(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        self._append({"time": time.time(), "event": event, **said})
