"""The results of a run for others: a copy of its tables and reports, in any directory or behind a URL."""

from __future__ import annotations

import logging
from pathlib import Path

from rlaif.errors import DataError, RunDirError
from rlaif.places.listing import join
from rlaif.places.urls import is_url
from rlaif.places.writing import copy_file
from rlaif.storage.damage import check_places
from rlaif.storage.manifest import MANIFEST_FILE

_logger = logging.getLogger(__name__)

#: Patterns of what a run leaves for others. What lets it be resumed (its journal, checkpoints) is not among it.
_RESULTS = (
    "config.yaml",
    "constitution.json",
    "comparisons/*.parquet",
    "preferences/*.parquet",
    "revisions/*.parquet",
    "rollouts/*.parquet",
    "evaluation.json",
    "evaluation_*.jsonl",
    "label_quality.json",
    "metrics.jsonl",
    "quarantine.jsonl",
    "report.html",
)
_MODELS = "models/*/*"


def export_run(run_dir: Path, destination: str, *, models: bool) -> list[str]:
    """Copy the results in ``run_dir`` below ``destination``; returns their names there.

    Each file arrives whole or not at all, in place of one of its name, so that an export can be repeated. What a link
    names outside the run directory is nothing that the run has made: it is left out, with a warning. Raises RunDirError
    when there is no run, DataError where nothing can be written.
    """
    if not (run_dir / MANIFEST_FILE).is_file():
        raise RunDirError(f"{run_dir}: not a run directory (no {MANIFEST_FILE})")
    check_places(run_dir)
    if not is_url(destination) and Path(destination).resolve().is_relative_to(run_dir.resolve()):
        raise DataError(
            f"{destination}: is in the run directory, which holds the run's own files; choose another place"
        )
    patterns = (*_RESULTS, _MODELS) if models else _RESULTS
    found = [file for pattern in patterns for file in sorted(run_dir.glob(pattern)) if _is_whole(file)]
    elsewhere = [file for file in found if not file.resolve().is_relative_to(run_dir.resolve())]
    for file in elsewhere:
        _logger.warning(
            "%s: is left out, as a link that leads out of the run directory; copy what others may have", file
        )
    files = [file for file in found if file not in elsewhere]
    places = {join(destination, file.relative_to(run_dir).as_posix()): file for file in files}
    for place, file in places.items():
        copy_file(file, place)
    return list(places)


def _is_whole(file: Path) -> bool:
    """Whether it is a file, and none that is still being written."""
    return file.is_file() and not file.name.startswith(".")
