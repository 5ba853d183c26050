"""What each file of a run directory holds, and what to do when it cannot be read: one line for whoever meets it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlaif.errors import RlaifError, RunDirError


class DamagedError(RunDirError):
    """A file of a run directory, at ``path``, that cannot be read; says what is lost, and what to do."""

    def __init__(self, message: str, path: Path = Path()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, kw_only=True)
class Part:
    """Files of a run directory by ``pattern``; ``remedy`` replaces ``rlaif doctor``, where that cannot help."""

    pattern: str
    holds: str
    remedy: str = ""


PARTS = (
    Part(
        pattern="config.yaml",
        holds="the configuration of the run",
        remedy="put back a copy, or remove it and run the same configuration again, which writes it",
    ),
    Part(
        pattern="audit/key.json",
        holds="the labels of the pairs in the judge's sheet",
        remedy="export the audit again with the same --rows and --seed",
    ),
    Part(
        pattern="audit/secret",
        holds="what decides on the sides of pairs in the judge's sheet",
        remedy="remove it to have another one made",
    ),
    Part(pattern="audit.json", holds="people's verdicts", remedy="import the filled sheet again"),
    Part(
        pattern="training_sets/*.parquet",
        holds="rows that models are trained on",
        remedy="make it again by running the configuration with --from and the stage that writes it: supervise for "
        "supervision.parquet, else fit_preference_model",
    ),
    Part(pattern="checkpoints/*/manifest.json", holds="which version a checkpoint is of"),
    Part(pattern="manifest.json", holds="which stages have finished"),
    Part(pattern="journal.sqlite", holds="all rows"),
    Part(pattern="constitution.json", holds="the constitution that was used last"),
    Part(pattern="driver.json", holds="where the run's driver is"),
    Part(pattern="evaluation.json", holds="the results of the evaluation"),
    Part(pattern="label_quality.json", holds="measures of the labels"),
    Part(pattern="quarantine.jsonl", holds="a list of the rows that are quarantined"),
    Part(pattern="evaluation_*.jsonl", holds="the texts that the evaluation judged"),
    Part(pattern="*.jsonl", holds="a log"),
    Part(pattern="report.html", holds="the report"),
    Part(pattern=".lock", holds="nothing, and is there for one process at a time to lock", remedy="remove it"),
    Part(pattern="*/*.parquet", holds="a copy of rows in journal.sqlite"),
)
DIRECTORIES = (
    *("audit", "checkpoints", "comparisons", "models", "preferences", "revisions", "rollouts", "training_sets"),
)


def damaged(path: Path, flaw: str) -> DamagedError:
    """The error for a file of a run directory in which there is a ``flaw``."""
    part = next((part for part in PARTS if path.match(part.pattern)), None)
    if part is None:
        return DamagedError(f"{path}: {flaw}", path)
    remedy = part.remedy or f"rlaif doctor {path.parents[part.pattern.count('/')]} mends it"
    return DamagedError(f"{path}: {flaw}; it holds {part.holds}; {remedy}", path)


def misplaced(run_dir: Path) -> Iterator[DamagedError]:
    """Where there is a directory, a broken link, a pipe or the like in the place of one of the run's files, or a file
    in that of a directory: reading it might find nothing, fail, or never end."""
    for name in DIRECTORIES:
        path = run_dir / name
        if os.path.lexists(path) and not path.is_dir():
            yield DamagedError(f"{path}: is not a directory; rlaif doctor {run_dir} sets it aside", path)
    for path in {path for part in PARTS for path in _found(run_dir, part.pattern)}:
        if os.path.lexists(path) and not path.is_file():
            yield damaged(path, "is not a file")


def _found(run_dir: Path, pattern: str) -> Iterable[Path]:
    return run_dir.glob(pattern) if "*" in pattern else (run_dir / pattern,)  # glob would pass over a broken link


def check_places(run_dir: Path) -> None:
    """Raises DamagedError for the first that is ``misplaced``: call it before any file of a run is looked for."""
    for error in misplaced(run_dir):
        raise error


def set_aside(path: Path) -> None:
    if os.path.lexists(path):
        path.rename(place_aside(path))


def place_aside(path: Path) -> Path:
    """Where to keep what is damaged of ``path``: beside what has been kept before."""
    place, number = path.with_name(f"{path.name}.damaged"), 1
    while os.path.lexists(place):
        number += 1
        place = path.with_name(f"{path.name}.{number}.damaged")
    return place


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read a file of a run directory, and nothing else, inside the block. Raises DamagedError when that fails."""
    try:
        yield
    except RlaifError:
        raise
    except OSError as error:
        raise damaged(path, f"cannot be read: {error.strerror or _first_line(error)}") from error
    except Exception as error:  # each format has errors of its own
        flaw = f"is damaged, or of another version: {_first_line(error)}"
        raise damaged(path, flaw if path.stat().st_size else "is empty") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
