"""The command line: parses first, imports heavy libraries after.

Exit codes: 0 success, 2 a user's mistake (one clear message), 1 the run failed, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.arguments import (
    ConfigName,
    FieldNames,
    InProcess,
    Overrides,
    RunDirPath,
    SuiteSources,
    check_examined,
    named_fields,
    named_suites,
    names_answers,
)
from actors.cli.audit import audit_app
from actors.cli.console import console, errors, take_over
from actors.cli.constitution import constitution_app
from actors.cli.control import scale_command, status_command
from actors.cli.data import data_command
from actors.cli.doctor import doctor_command
from rlaif.config.files import SHIPPED_CONFIGS, load_config
from rlaif.config.schema import Config
from rlaif.errors import Interrupted, RlaifError, UserError
from rlaif.storage.manifest import read_manifest

if TYPE_CHECKING:
    from actors.work import Work

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(constitution_app, name="constitution")
app.add_typer(audit_app, name="audit")
app.command("data")(data_command)
app.command("doctor")(doctor_command)
app.command("status")(status_command)
app.command("scale")(scale_command)


@app.command("run")
def run_command(
    config: ConfigName,
    overrides: Overrides = None,
    in_process: InProcess = False,
    again_from: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="run this stage and those after it again")
    ] = None,
) -> None:
    """Run the whole method, or resume it when its run directory exists."""
    from actors.work import PIPELINE, pipeline_from
    from rlaif.stages.pipeline import check_stage

    settings = load_config(config, overrides or [])
    if again_from is not None:
        check_stage(settings, again_from)  # before a miniature is made
    work = PIPELINE if again_from is None else pipeline_from(again_from)
    _summarise(_drive(settings, work, in_process))


@app.command("stage")
def stage_command(name: str, config: ConfigName, overrides: Overrides = None, in_process: InProcess = False) -> None:
    """Run one stage of the method; the stages before it must be done."""
    from actors.work import one_stage
    from rlaif.stages.pipeline import STAGES

    if name not in STAGES:
        raise UserError(f"stage {name}: no such stage; one of: {', '.join(STAGES)}")
    _drive(load_config(config, overrides or []), one_stage(name), in_process)


@app.command("label")
def label_command(
    file: Annotated[str, typer.Argument(help="pairs of answers: a file, a directory, a URL, or hf:NAME")],
    overrides: Overrides = None,
    out: Annotated[str, typer.Option("--out", help="where the labels go; run again to resume")] = "runs/labels",
    model: Annotated[str | None, typer.Option("--model", help="the feedback model")] = None,
    config: Annotated[str | None, typer.Option("--config", help="as for run; by default the shipped label")] = None,
    fields: FieldNames = None,
    in_process: InProcess = False,
) -> None:
    """Label pairs of answers that you bring, each in both orders and exactly once."""
    from actors.work import LABELS
    from rlaif.evaluation.tables import label_table

    chosen = {} if model is None else {"labeller.model": model}
    fields_of_rows = {f"data.comparisons.{name}": path for name, path in named_fields(fields).items()}
    values = {**chosen, "run_dir": out, "data.comparisons.path": file, **fields_of_rows}
    settings = load_config(SHIPPED_CONFIGS / "label.yaml" if config is None else config, overrides or [], values)
    if settings.labeller.model.startswith("miniature:"):
        errors.print("note: the miniature's feedback model is the judge; name your own with --model", style="yellow")
    run_dir = _drive(settings, LABELS, in_process)
    console.print(label_table(run_dir))
    console.print(f"labels: {run_dir / 'preferences' / 'preferences.parquet'}")


@app.command("evaluate")
def evaluate_command(
    model: Annotated[
        str, typer.Argument(help="a directory in Hugging Face layout, a hub name, or a file of finished answers")
    ],
    overrides: Overrides = None,
    suites: SuiteSources = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="the feedback model; by default rules alone say what answers do")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="where the results go; run again to resume")] = "runs/evaluation",
    config: Annotated[str | None, typer.Option("--config", help="as for run; by default the shipped evaluate")] = None,
    in_process: InProcess = False,
) -> None:
    """Let a model answer public test suites, and say what its answers do: comply, refuse, help with harm."""
    from actors.work import evaluation_of

    is_finished = names_answers(model)
    values: dict[str, object] = {"run_dir": out, **named_suites(suites)}
    values["evaluation.answers" if is_finished else "generator.model"] = model
    values |= {} if judge is None else {"labeller.model": judge, "evaluation.judged": True}
    changes = overrides or []
    if config is None:
        config, changes = str(SHIPPED_CONFIGS / "evaluate.yaml"), ["dialogue_format=chat_template", *changes]
    settings = load_config(config, changes, values)
    if judge is None and settings.labeller.model.startswith("miniature:"):  # which knows only its small world
        settings = load_config(config, changes, {**values, "evaluation.judged": False})
    check_examined(settings, model)
    if judge == model:
        errors.print("note: the model judges its own answers; name another --judge for a verdict", style="yellow")
    _summarise(_drive(settings, evaluation_of(settings), in_process))


@app.command("reaggregate")
def reaggregate_command(
    run_dir: RunDirPath,
    out: Annotated[str, typer.Option("--out", help="the parquet file to write, or its URL")],
    overrides: Overrides = None,
) -> None:
    """Recompute the labels of a run from their stored log-probabilities, e.g. with labelling.aggregation=logit_mean."""
    from rlaif.labels.reaggregation import reaggregate_run
    from rlaif.storage.stored_config import stored_config

    settings = stored_config(run_dir, overrides or [])
    num, num_changed = reaggregate_run(run_dir, settings.labelling, out)
    console.print(f"{num:,} labels in {out}; {num_changed:,} differ from those of the run")


@app.command("plan")
def plan_command(config: ConfigName, overrides: Overrides = None) -> None:
    """Check a configuration as run does, and print what it needs; starts nothing."""
    from actors.cli.plan import print_plan

    print_plan(load_config(config, overrides or []))


@app.command("submit")
def submit_command(
    config: ConfigName,
    address: Annotated[str, typer.Option("--address", help="the cluster's Jobs API, e.g. http://head:8265")],
    overrides: Overrides = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="show its log to the end, or print its id")] = True,
) -> None:
    """Run a configuration on another cluster; exits as the run there does."""
    from actors.submit.submit import submit

    job = submit(load_config(config, overrides or []), address)
    if not wait:
        console.print(job.name, highlight=False)
        return
    errors.print(f"{job.name} is submitted. {job.hints}", highlight=False)
    raise typer.Exit(job.follow(lambda text: console.print(text, end="", highlight=False)))


@app.command("report")
def report_command(
    run_dir: RunDirPath,
    out: Annotated[
        Path | None, typer.Option("--out", help="where to write the report; by default the run directory")
    ] = None,
) -> None:
    """Rewrite report.html and print the summary."""
    from rlaif.evaluation.report import write_report

    read_manifest(run_dir)
    _summarise(run_dir, write_report(run_dir, out))


@app.command("export")
def export_run_command(
    run_dir: RunDirPath,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="a directory, or a URL such as s3://BUCKET/PREFIX")
    ],
    models: Annotated[bool, typer.Option("--models", help="the models as well")] = False,
) -> None:
    """Copy the tables and reports of a run, for others; run it again to bring the copy up to date."""
    from rlaif.storage.export import export_run

    files = export_run(run_dir, destination, models=models)
    console.print(f"{len(files)} files in {destination}", highlight=False)


def _drive(config: Config, work: Work, in_process: bool) -> Path:
    from actors.cli.progress import Bars
    from actors.driver import drive

    with Bars(console) as bars:
        try:
            return asyncio.run(_cancelled_by_sigterm(drive(config, bars, work, in_process=in_process)))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _cancelled_by_sigterm(work: Coroutine[Any, Any, Path]) -> Path:
    """Let SIGTERM, with which clusters stop a job, cancel ``work`` as Ctrl-C does, so that everything is closed."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _summarise(run_dir: Path, report: Path | None = None) -> None:
    from rlaif.evaluation.tables import summary_table

    console.print(summary_table(run_dir))
    console.print(f"report: {report or run_dir / 'report.html'}")


def main(arguments: list[str] | None = None) -> None:
    take_over(sys.argv[1:] if arguments is None else arguments)
    try:
        app(arguments)
    except UserError as error:
        _fail(str(error), 2)
    except Interrupted as error:
        _fail(str(error), 130)
    except RlaifError as error:
        _fail(str(error), 1)
    except ExceptionGroup as group:  # raised by loops that ran concurrently
        causes = list(_causes(group))
        if not all(isinstance(cause, RlaifError) for cause in causes):
            raise
        _fail("\n".join(map(str, causes)), 2 if all(isinstance(cause, UserError) for cause in causes) else 1)
    except SystemExit as leaving:
        if leaving.code == 130:  # typer turns Ctrl-C into this
            _fail("interrupted; run the same command again to resume", 130)
        raise


def _causes(group: BaseExceptionGroup) -> Iterator[BaseException]:
    for error in group.exceptions:
        yield from _causes(error) if isinstance(error, BaseExceptionGroup) else (error,)


def _fail(message: str, code: int) -> None:
    errors.print(f"error: {message}", highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
