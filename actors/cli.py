"""The command line: parses first, imports heavy libraries after.

Exit codes: 0 success, 2 a user's mistake (one clear message), 1 the run failed, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from actors import audit_cli
from actors.console import console, errors
from rlaif.config import Config
from rlaif.config_file import load_config
from rlaif.errors import RlaifError, UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(audit_cli.app, name="audit")

ConfigPath = Annotated[Path, typer.Argument(help="a YAML configuration, e.g. configs/quickstart.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted overrides, e.g. seed=1 run_dir=runs/two")]
InProcess = Annotated[bool, typer.Option("--in-process", help="run without Ray, in this process")]
RunDirPath = Annotated[Path, typer.Argument(help="the directory of a run")]


@app.command()
def run(config: ConfigPath, overrides: Overrides = None, in_process: InProcess = False) -> None:
    """Run the whole method, or resume it when its run directory exists."""
    run_dir = _drive(load_config(config, overrides or []), None, in_process)
    _summarise(run_dir)


@app.command()
def stage(name: str, config: ConfigPath, overrides: Overrides = None, in_process: InProcess = False) -> None:
    """Run one stage of the method; the stages before it must be done."""
    from rlaif.stages.pipeline import STAGES

    if name not in STAGES:
        raise UserError(f"stage {name}: no such stage; one of: {', '.join(STAGES)}")
    _drive(load_config(config, overrides or []), name, in_process)


@app.command()
def plan(config: ConfigPath, overrides: Overrides = None) -> None:
    """Validate a configuration and print what it needs; starts nothing."""
    from actors.placement import check, declared, table
    from actors.placement import plan as plan_of
    from rlaif.config_checks import check_sources
    from rlaif.constitution import load_constitution
    from rlaif.miniature.lexicon import load_lexicon

    settings = load_config(config, overrides or [])
    load_constitution(settings.constitution)
    check_sources(settings)
    load_lexicon(settings.miniature.lexicon)
    needs = plan_of(settings)
    console.print(table(needs))
    check(needs, declared(settings))
    console.print("The declared resources hold this plan.")


@app.command()
def report(run_dir: RunDirPath) -> None:
    """Write report.html again and print the summary."""
    from rlaif.evaluation.report import write_report

    if not (run_dir / "manifest.json").is_file():
        raise UserError(f"{run_dir}: not a run directory (no manifest.json)")
    write_report(run_dir)
    _summarise(run_dir)


def _drive(config: Config, stage: str | None, in_process: bool) -> Path:
    from actors.driver import drive
    from actors.progress import Bars

    with Bars(console) as bars:
        return asyncio.run(drive(config, bars, stage=stage, in_process=in_process))


def _summarise(run_dir: Path) -> None:
    from rlaif.evaluation.report import summary_table

    console.print(summary_table(run_dir))
    console.print(f"report: {run_dir / 'report.html'}")


def main(arguments: list[str] | None = None) -> Any:
    try:
        app(arguments)
    except UserError as error:
        _fail(str(error), 2)
    except RlaifError as error:
        _fail(str(error), 1)
    except ExceptionGroup as group:
        _fail("\n".join(str(error) for error in group.exceptions), 1)
    except SystemExit as leaving:
        if leaving.code == 130:  # what typer makes of Ctrl-C
            _fail("interrupted; run the same command again to resume", 130)
        raise


def _fail(message: str, code: int) -> None:
    errors.print(f"error: {message}", markup=False, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
