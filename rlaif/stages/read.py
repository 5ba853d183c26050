"""Before the story: read every prompt once, so that bad rows are known, counted and named before an engine starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlaif.data.rows import files_of, rows_of
from rlaif.records import Axis
from rlaif.stages.run import Run

AXES: tuple[Axis, ...] = ("red_team", "helpful")


async def read(run: Run) -> None:
    for axis in AXES:
        source = run.config.data.red_team if axis == "red_team" else run.config.data.helpful
        account_source(run, f"prompts_{axis}", run.path(source), run.prompts(axis))


def account_source(run: Run, name: str, source: str, records: Iterable[Any]) -> int:
    """Read ``records`` of ``source`` to their end and account for its rows; returns the number of good ones."""
    num_rows = sum(1 for file in files_of(source) for _ in rows_of(file))
    num_good = sum(1 for _ in records)
    run.run_dir.account(name, rows_in=num_rows, rows_out=num_good, quarantined=_num_bad(run, source))
    return num_good


def _num_bad(run: Run, source: str) -> int:
    files = set(files_of(source))
    return sum(1 for row in run.run_dir.journal.quarantined() if row.stage == "read" and row.file in files)
