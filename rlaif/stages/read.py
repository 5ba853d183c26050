"""Before the story: read every prompt once, so that bad rows are known, counted and named before an engine starts."""

from __future__ import annotations

from rlaif.data.rows import files_of, rows_of
from rlaif.records import Axis
from rlaif.stages.run import Run

AXES: tuple[Axis, ...] = ("red_team", "helpful")


async def read(run: Run) -> None:
    for axis in AXES:
        source = run.config.data.red_team if axis == "red_team" else run.config.data.helpful
        num_rows = sum(1 for file in files_of(run.path(source)) for _ in rows_of(file))
        num_prompts = sum(1 for _ in run.prompts(axis))
        run.run_dir.account(
            f"prompts_{axis}", rows_in=num_rows, rows_out=num_prompts, quarantined=_num_bad(run, run.path(source))
        )


def _num_bad(run: Run, source: str) -> int:
    files = set(files_of(source))
    return sum(1 for row in run.run_dir.journal.quarantined() if row.stage == "read" and row.file in files)
