"""``metrics.jsonl`` and ``events.jsonl``: append-only logs, one JSON object a line.

Metric keys are ``stage/group/name``, e.g. ``reinforce/kl/sequence_mean``; a line holds the metrics of one moment:
``time, stage, index, metrics``. ``index`` counts what the stage repeats: batches (``reinforce``), versions of the
preference model (``refresh``); it is null where lines are only counted, one for each optimizer step (SFT, PM), and for
metrics of a stage as a whole. Logs of earlier runs call it ``step``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.errors import StorageError


def _mend(path: Path) -> Path:
    """Drop the partial line that a full disk or a killed process left at the end of a log."""
    if path.is_file():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return path


def _append(path: Path, line: Mapping[str, Any]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error}") from error


class MetricsLog:
    def __init__(self, path: Path) -> None:
        self._path = _mend(path)

    def write(self, stage: str, metrics: Mapping[str, float], index: int | None = None) -> None:
        # JSON has no NaN: a metric that does not exist (an accuracy over no rows) is null.
        clean = {k: (float(v) if math.isfinite(v) else None) for k, v in metrics.items()}
        _append(self._path, {"time": time.time(), "stage": stage, "index": index, "metrics": clean})


class EventLog:
    def __init__(self, path: Path) -> None:
        self._path = _mend(path)

    def write(self, event: str, **facts: Any) -> None:
        _append(self._path, {"time": time.time(), "event": event, **facts})
