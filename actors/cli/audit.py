"""``rlaif audit``: people judge a sample of the AI labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actors.cli.arguments import RunDirPath
from actors.cli.console import console

audit_app = typer.Typer(no_args_is_help=True, help=__doc__)


@audit_app.command("export")
def export_command(
    run_dir: RunDirPath,
    out: Annotated[str, typer.Option(help="a directory or URL for the judge's files")],
    rows: Annotated[int, typer.Option(min=1, help="most labels to draw")] = 200,
    seed: Annotated[int, typer.Option(help="seed of the draw, and of which answer is on the left")] = 0,
) -> None:
    """Draw labels and write audit.csv, to be filled in, and audit.html, to be read with it."""
    from rlaif.evaluation.audit.exchange import export_audit, export_lines

    key = export_audit(run_dir, out, rows, seed)
    _print(export_lines(key, run_dir, out))


@audit_app.command("import")
def import_verdicts_command(
    run_dir: RunDirPath,
    file: Annotated[Path, typer.Argument(help="the filled audit.csv, as your spreadsheet saved it")],
) -> None:
    """Read the verdicts back and report how far people and labels agree."""
    from rlaif.evaluation.audit.exchange import import_audit
    from rlaif.evaluation.audit.presentation import audit_lines, audit_table

    audit = import_audit(run_dir, file)
    console.print(audit_table(audit))
    _print(audit_lines(audit))
    console.print(f"{run_dir / 'audit.json'}; rlaif report {run_dir} shows it", highlight=False)


def _print(lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False)
