"""Step 0. Consumes: the sources of prompts. Waits for: nothing. Produces: counts of their rows, and the bad ones in
quarantine, so that they are known and named before an engine starts."""

from __future__ import annotations

from rlaif.records import Axis
from rlaif.stages.bookkeeping import account_source
from rlaif.stages.run import Run

AXES: tuple[Axis, ...] = ("red_team", "helpful")


async def read(run: Run) -> None:
    for axis in AXES:
        source = run.config.data.red_team if axis == "red_team" else run.config.data.helpful
        account_source(run, f"prompts_{axis}", run.path(source), run.prompts(axis))
