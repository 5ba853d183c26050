"""``rlaif doctor``: a run directory is checked and mended."""

from __future__ import annotations

import typer

from actors.cli.arguments import RunDirPath
from actors.cli.console import console


def doctor_command(run_dir: RunDirPath) -> None:
    """Read every file of a run directory, and mend what is damaged. Nothing is deleted that holds anything."""
    from rlaif.stages.doctor import examine

    unmended = num = 0
    for repair in examine(run_dir):
        num += 1
        unmended += not repair.mended
        console.print(f"{'' if repair.mended else 'not mended: '}{repair}", highlight=False)
    if not num:
        console.print(f"{run_dir}: nothing is damaged", highlight=False)
    if unmended:
        raise typer.Exit(2)
