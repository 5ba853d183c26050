"""The command line: parses first, imports heavy libraries after.

Exit codes: 0 success, 2 a user's mistake (one clear message), 1 the run failed, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.cli import audit as audit_cli
from actors.cli import constitution as constitution_cli
from actors.cli import control as control_cli
from actors.cli.console import console, errors
from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.errors import Interrupted, RlaifError, UserError

LABEL_CONFIG = Path(__file__).parents[2] / "configs" / "label.yaml"

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(constitution_cli.app, name="constitution")
app.add_typer(audit_cli.app, name="audit")
app.command()(control_cli.status)
app.command()(control_cli.scale)

ConfigPath = Annotated[Path, typer.Argument(help="a YAML configuration, e.g. configs/quickstart.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted overrides, e.g. seed=1 run_dir=runs/two")]
InProcess = Annotated[bool, typer.Option("--in-process", help="run without Ray, in this process")]
RunDirPath = Annotated[Path, typer.Argument(help="the directory of a run")]


@app.command()
def run(config: ConfigPath, overrides: Overrides = None, in_process: InProcess = False) -> None:
    """Run the whole method, or resume it when its run directory exists."""
    from actors.driver import PIPELINE

    _summarise(_drive(load_config(config, overrides or []), PIPELINE, in_process))


@app.command()
def stage(name: str, config: ConfigPath, overrides: Overrides = None, in_process: InProcess = False) -> None:
    """Run one stage of the method; the stages before it must be done."""
    from actors.driver import one_stage
    from rlaif.stages.pipeline import STAGES

    if name not in STAGES:
        raise UserError(f"stage {name}: no such stage; one of: {', '.join(STAGES)}")
    _drive(load_config(config, overrides or []), one_stage(name), in_process)


@app.command()
def label(
    file: Annotated[str, typer.Argument(help="pairs of answers: .jsonl, .csv, .parquet, a directory, or hf:NAME")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", help="where the labels go; run again to resume")] = Path("runs/labels"),
    model: Annotated[str | None, typer.Option("--model", help="the feedback model")] = None,
    config: Annotated[Path, typer.Option("--config", help="a YAML configuration")] = LABEL_CONFIG,
    in_process: InProcess = False,
) -> None:
    """Label pairs of answers that you bring, each in both orders and exactly once."""
    from actors.driver import LABELS
    from rlaif.evaluation.tables import label_table

    chosen = [f"labeller.model={model}"] if model else []
    keys = [*(overrides or []), *chosen, f"run_dir={out}", f"data.comparisons={file}"]
    settings = load_config(config, keys)
    if settings.labeller.model.startswith("miniature:"):
        errors.print("note: judged by the miniature's feedback model; name your own with --model", style="yellow")
    run_dir = _drive(settings, LABELS, in_process)
    console.print(label_table(run_dir))
    console.print(f"labels: {run_dir / 'preferences' / 'preferences.parquet'}")


@app.command()
def reaggregate(
    run_dir: RunDirPath,
    out: Annotated[Path, typer.Option("--out", help="the parquet file to write")],
    overrides: Overrides = None,
) -> None:
    """Make the labels of a run anew from their stored log-probabilities, e.g. with labelling.aggregation=logit_mean."""
    from rlaif.labels.reaggregation import reaggregate_run

    settings = load_config(run_dir / "config.yaml", overrides or [])
    num, num_changed = reaggregate_run(run_dir, settings.labelling, out)
    console.print(f"{num:,} labels in {out}; {num_changed:,} differ from those of the run")


@app.command()
def plan(config: ConfigPath, overrides: Overrides = None) -> None:
    """Validate a configuration and print what it needs; starts nothing."""
    from actors.cluster.placement import check, declared, phases_of, table
    from actors.cluster.placement import plan as plan_of
    from rlaif.constitution.principles import load_constitution
    from rlaif.preflight import check_constitution, check_files, check_sources

    settings = load_config(config, overrides or [])
    check_constitution(load_constitution(settings.constitution), settings, revises=True)
    check_files(settings)
    check_sources(settings)
    needs = plan_of(settings, phases_of(settings))
    console.print(table(needs))
    check(needs, declared(settings))
    console.print("The declared resources hold this plan.")


@app.command()
def submit(
    config: ConfigPath,
    address: Annotated[str, typer.Option("--address", help="the cluster's Jobs API, e.g. http://head:8265")],
    overrides: Overrides = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="follow it to its end, or print its id")] = True,
) -> None:
    """Run a configuration on a cluster elsewhere; exits as the run there does."""
    from actors.submit.submit import submit as submit_job

    job = submit_job(load_config(config, overrides or []), address)
    if not wait:
        print(job.name)
        return
    errors.print(f"{job.name} is submitted. {job.hints}", markup=False, highlight=False)
    raise typer.Exit(job.follow(lambda text: print(text, end="", flush=True)))


@app.command()
def report(run_dir: RunDirPath) -> None:
    """Write report.html again and print the summary."""
    from rlaif.evaluation.report import write_report

    if not (run_dir / "manifest.json").is_file():
        raise UserError(f"{run_dir}: not a run directory (no manifest.json)")
    write_report(run_dir)
    _summarise(run_dir)


def _drive(config: Config, work: Any, in_process: bool) -> Path:
    from actors.cli.progress import Bars
    from actors.driver import drive

    with Bars(console) as bars:
        try:
            return asyncio.run(_heeding_sigterm(drive(config, bars, work, in_process=in_process)))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _heeding_sigterm(work: Coroutine[Any, Any, Path]) -> Path:
    """SIGTERM, with which clusters stop a job, cancels ``work`` as Ctrl-C does: everything is closed on the way out."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _summarise(run_dir: Path) -> None:
    from rlaif.evaluation.tables import summary_table

    console.print(summary_table(run_dir))
    console.print(f"report: {run_dir / 'report.html'}")


def main(arguments: list[str] | None = None) -> Any:
    try:
        app(arguments)
    except UserError as error:
        _fail(str(error), 2)
    except Interrupted as error:
        _fail(str(error), 130)
    except RlaifError as error:
        _fail(str(error), 1)
    except ExceptionGroup as group:  # of loops that ran at the same time
        causes = list(_causes(group))
        if not all(isinstance(cause, RlaifError) for cause in causes):
            raise
        _fail("\n".join(map(str, causes)), 2 if all(isinstance(cause, UserError) for cause in causes) else 1)
    except SystemExit as leaving:
        if leaving.code == 130:  # what typer makes of Ctrl-C
            _fail("interrupted; run the same command again to resume", 130)
        raise


def _causes(group: BaseExceptionGroup) -> Iterator[BaseException]:
    for error in group.exceptions:
        yield from _causes(error) if isinstance(error, BaseExceptionGroup) else (error,)


def _fail(message: str, code: int) -> None:
    errors.print(f"error: {message}", markup=False, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
