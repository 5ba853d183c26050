"""``rlaif status`` and ``rlaif scale``: the state of a run, and how many engines serve it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from actors.cli.arguments import RunDirPath
from actors.cli.console import console
from actors.cluster.announcement import Announcement, find_run
from rlaif.config.contradictions import pools_of, trainers_of
from rlaif.config.schema import PoolSettings
from rlaif.errors import RunDirError, RunError, StorageError, UserError
from rlaif.storage.damage import DamagedError
from rlaif.storage.manifest import Manifest, read_manifest
from rlaif.storage.metrics import read_log
from rlaif.storage.stored_config import stored_config

if TYPE_CHECKING:
    from actors.cluster.whereabouts import Whereabouts
    from actors.control import ControlReply
    from actors.pool.pool import PoolStats

STATUS_TIMEOUT_S = 60.0
REPLY_TIMEOUT_S = 30.0  #: longest time for a busy driver to reply


def status_command(run_dir: RunDirPath) -> None:
    """Show what a run has done, the stage it is in, and the engines that serve it now."""
    manifest = read_manifest(run_dir)
    console.print(_story(run_dir, manifest))
    console.print(_rows(manifest))
    for line in _outdated(run_dir):
        console.print(f"changed since the run used it: {line}", highlight=False)
    try:
        run = find_run(run_dir)
        answer = _ask(run_dir, run, None, STATUS_TIMEOUT_S, "its driver to report on its engines")
    except UserError as error:  # a finished run has a status, too
        console.print(str(error), highlight=False)
        return
    console.print(f"running: pid {run.pid} on {run.host}, Ray at {run.address}", highlight=False)
    console.print(_pools(answer.pools) if answer.pools else "no engines now")
    if answer.ranks:
        console.print(_ranks(answer.ranks))


def scale_command(
    run_dir: RunDirPath,
    role: Annotated[str, typer.Argument(help="generator, labeller or scorer")],
    size: Annotated[int, typer.Argument(metavar="N", help="engines, within the role's min and max")],
) -> None:
    """Resize a role of a running run to N engines; returns once new ones serve and removed ones have finished."""
    run = find_run(run_dir)
    settings = _elastic(run_dir, role, size)
    began = time.monotonic()
    limit = settings.start_timeout_s + settings.idle_timeout_s + REPLY_TIMEOUT_S
    answer = _ask(run_dir, run, (role, size), limit, f"{role} to have {size} engines")
    if answer.mistake:
        raise UserError(answer.mistake)
    if answer.failure:
        raise RunError(answer.failure)
    seconds = time.monotonic() - began
    console.print(f"{role}: {answer.pools[role].engines} engines serve, after {seconds:.1f} s", highlight=False)


def _elastic(run_dir: Path, role: str, size: int) -> PoolSettings:
    """The settings of a role that can have ``size`` engines. Raises UserError."""
    config = stored_config(run_dir)
    pools = pools_of(config)
    if role not in pools:
        fixed = " has as many ranks as the run began with" if role in trainers_of(config) else " is not a role"
        raise UserError(f"{role}:{fixed}; the roles that scale: {', '.join(pools)}")
    settings = pools[role]
    if not settings.min <= size <= settings.max:
        raise UserError(f"{role}: {size} engines asked for; {role}.min={settings.min} and max={settings.max}")
    return settings


def _ask(run_dir: Path, run: Announcement, size: tuple[str, int] | None, timeout_s: float, what: str) -> ControlReply:
    """The driver's reply; for a ``size`` (role, number), once the role has it."""
    run.prepare_to_ask()
    from actors.control import PoolOrder, ask_driver

    return ask_driver(run_dir, run, PoolOrder(role=size[0], size=size[1]) if size else PoolOrder(), timeout_s, what)


# --------------------------------------------------------------------------------------------------------- tables
def _story(run_dir: Path, manifest: Manifest) -> Table:
    """The stages that are done, and the one that is running or was interrupted."""
    table = Table("stage", "state", "seconds", title=str(run_dir), title_justify="left")
    finished = manifest["stages"]
    for stage, facts in finished.items():
        table.add_row(stage, "done", f"{facts['seconds']:.1f}")
    for event in list(_stage_events(run_dir))[-1:]:
        if event["event"] == "stage_started" and event["stage"] not in finished:
            table.add_row(event["stage"], "not finished", f"{time.time() - event['time']:.0f} since it began")
    return table


def _rows(manifest: Manifest) -> Table:
    table = Table("rows", "in", "out", "quarantined", "shortened")
    for name, counts in manifest["rows"].items():
        table.add_row(name, *(f"{counts.get(key, 0):,}" for key in ("rows_in", "rows_out", "quarantined", "cut")))
    return table


def _outdated(run_dir: Path) -> list[str]:
    from rlaif.stages.pipeline import outdated
    from rlaif.storage.stored_run import StoredRun

    try:
        run = StoredRun.open(run_dir)
    except DamagedError:
        raise
    except (RunDirError, StorageError):  # of an earlier format, or without a journal
        return []
    try:
        return outdated(stored_config(run_dir), run)
    finally:
        run.close()


def _pools(pools: Mapping[str, PoolStats]) -> Table:
    table = Table("engines", "serve", "start", "rows in flight", "waiting", "done", "failed", "restarts", "where")
    for role, stats in pools.items():
        waiting = f"{stats.waiting:,}{' or more' if stats.unread else ''}"
        where = _hosts(stats.where.values())
        numbers = (stats.engines, stats.starting, stats.in_flight)
        counts = (stats.done, stats.failed, stats.restarts)
        table.add_row(role, *map(_grouped, numbers), waiting, *map(_grouped, counts), where)
    return table


def _ranks(ranks: Mapping[str, Mapping[int, Whereabouts]]) -> Table:
    table = Table("trainer", "ranks", "where")
    for name, where in ranks.items():
        table.add_row(name, _grouped(len(where)), _hosts(where.values()))
    return table


def _hosts(where: Iterable[Whereabouts]) -> str:
    return ", ".join(f"{number} on {host}" for host, number in Counter(one.host for one in where).items())


def _grouped(number: int) -> str:
    return f"{number:,}"


def _stage_events(run_dir: Path) -> Iterator[dict[str, Any]]:
    return (event for event in read_log(run_dir / "events.jsonl") if str(event.get("event")).startswith("stage_"))
