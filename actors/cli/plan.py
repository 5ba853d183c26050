"""``rlaif plan``: what a configuration needs, as tables, and whether it can have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.table import Column, Table

from actors.cli.console import console
from actors.cluster.occupancy import busy_share, idle_phases
from actors.cluster.placement import ResourcePlan, phases_of, plan, table
from actors.work import PIPELINE, check_work
from rlaif.config.schema import Config
from rlaif.errors import PlacementError
from rlaif.sizes.durations import Duration, durations, phases_on_cpus
from rlaif.sizes.machine import machine_of
from rlaif.sizes.needs import RunNeeds, Unit, gib, read_models, run_needs
from rlaif.sizes.refusals import unknown_sizes
from rlaif.sizes.training import GIBIBYTE
from rlaif.storage.manifest import MANIFEST_FILE

#: Columns of the table of memory, and the parts that each adds up.
PART_COLUMNS = {
    "weights": ("weights", "reference"),
    "optimizer": ("gradients", "optimizer", "step"),
    "activations": ("activations", "head"),
    "rest": ("buffers", "gathered", "context", "files", "process"),
}

CACHE_COLUMNS = ("KV cache", "GPU", "host", "sequences")


def print_plan(config: Config) -> None:
    """Print what ``config`` needs, and what a run would make again. Raises UserError as ``run`` does."""
    try:
        check_work(config, PIPELINE, "ray")
    except PlacementError:
        _print_needs(config)
        raise
    _print_needs(config)
    console.print("The declared resources are enough for this plan.")
    if (Path(config.run_dir) / MANIFEST_FILE).is_file():
        _print_changes(config)


def _print_needs(config: Config) -> None:
    phases = phases_of(config)
    resources = plan(config, phases)
    console.print(table(resources))
    console.print("Each role serves a model of its own in engines of its own: roles of one phase divide its GPUs.")
    for line in idle_phases(resources, config):
        console.print(line)
    needs = run_needs(config, phases, machine_of(config), read_models(config, phases))
    for line in unknown_sizes(needs):
        console.print(f"note: {line}", style="yellow", highlight=False)
    if not needs.units:
        return
    console.print(memory_table(needs))
    times = durations(config, needs)
    console.print(phase_table(needs, resources, times))
    for line in (*summary(needs, times), *notes(config, needs)):
        console.print(line, highlight=False)


def memory_table(needs: RunNeeds) -> Table:
    """A row for each role and phase: GiB of one GPU, or of the host where the role has none."""
    names = (Column("", no_wrap=True), "phases", "ranks")
    columns = (Column(name, justify="right", no_wrap=True) for name in (*PART_COLUMNS, *CACHE_COLUMNS))
    title = "Memory of one rank of each engine or trainer in GiB, and the longest sequences that its cache holds"
    shown = Table(*names, *columns, title=title, title_justify="left")
    rows: dict[tuple[str, ...], list[str]] = {}
    for unit in needs.units:
        if unit.engine is not None or unit.rank is not None:
            rows.setdefault((unit.role, str(unit.count * unit.parts), *_sizes(unit)), []).append(unit.phase)
    for (role, count, *sizes), phases in rows.items():
        shown.add_row(role, ", ".join(phases), count, *sizes)
    return shown


def _sizes(unit: Unit) -> Iterator[str]:
    memory = unit.engine or unit.rank
    assert memory is not None
    if unit.engine is not None:
        parts = unit.engine.parts
    else:
        assert unit.rank is not None
        parts = unit.rank.device if unit.gpus else unit.rank.host
    for names in PART_COLUMNS.values():
        yield _number(sum(parts.get(name, 0) for name in names))
    yield _number(unit.engine.cache) if unit.engine else ""
    yield _number(unit.device) if unit.gpus else ""
    yield _number(unit.host / unit.parts)
    yield f"{unit.engine.sequences:,.0f}" if unit.engine else ""


def _number(size: float) -> str:
    return f"{size / GIBIBYTE:,.1f}"


def phase_table(needs: RunNeeds, resources: ResourcePlan, times: list[Duration]) -> Table:
    """A row for each phase: the share of the GPUs that it holds, the fullest card and node, how long it may take."""
    by_phase = {time.phase: time for time in times}
    phases = {phase.name: phase for phase in resources.phases}
    names = ("", "GPUs busy", "fullest GPU", "fullest node", "estimated time", "estimated GPU hours")
    shown = Table(Column("", no_wrap=True), *names[1:], title="Phases", title_justify="left")
    for phase in needs.phases:
        time = by_phase.get(phase)
        share = f"{busy_share(phases[phase], needs.num_gpus):.0%}" if needs.num_gpus else ""
        card = gib(needs.fullest_card(phase)[0]) if needs.num_gpus and needs.machine.card else ""
        shown.add_row(phase, share, card, gib(needs.fullest_node(phase)), *(_times(time) if time else ("", "")))
    return shown


def _times(time: Duration) -> tuple[str, str]:
    per = "" if time.is_whole and time.unit != "batches" else f" for {time.rows:,} {time.unit}"
    return f"{_span(time.seconds)}{per}", f"{time.gpu_hours:,.1f}"


def _span(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"


def summary(needs: RunNeeds, times: list[Duration]) -> Iterator[str]:
    """What the shipped configurations say of themselves: the fullest card and node, disk, store, time."""
    if needs.num_gpus and needs.machine.card:
        fullest = max(needs.phases, key=lambda phase: needs.fullest_card(phase)[0])
        size, card = needs.fullest_card(fullest)[0], needs.machine.card
        yield f"GPU memory: at most {gib(size)} of {gib(card)} ({needs.machine.name}), in {fullest}"
    node = max(map(needs.fullest_node, needs.phases))
    yield f"host memory: at most {gib(node)} on one node; Ray's object store: {gib(needs.store)} of weights"
    checkpoints = f"{needs.num_checkpoints} checkpoints of {gib(needs.checkpoint)}"
    yield f"disk: {gib(needs.disk)} in run_dir ({checkpoints}, models of {gib(needs.models)})"
    if needs.fetched:
        yield f"models of the hub: {gib(needs.fetched)} in HF_HOME"
    whole = [time for time in times if time.is_whole]
    if whole:
        span, hours = _span(sum(time.seconds for time in whole)), sum(time.gpu_hours for time in whole)
        missing = {
            "whose sources name no number of rows": [time.phase for time in times if not time.is_whole],
            "where a role has no GPU": phases_on_cpus(needs),
        }
        left_out = " and ".join(f"{', '.join(phases)} ({why})" for why, phases in missing.items() if phases)
        without = f" without {left_out}" if left_out else ""
        yield f"time: {span}, {hours:,.0f} GPU hours{without}; an estimate from the card's data sheet, not measured"


def notes(config: Config, needs: RunNeeds) -> Iterator[str]:
    """What need not stop a run, but should be known."""
    if config.resources.address is None and needs.store > config.resources.object_store_gib * GIBIBYTE:
        least = -(-needs.store // GIBIBYTE)
        yield f"note: what Ray's object store cannot hold goes to disk; set resources.object_store_gib={least}"
    if needs.num_gpus and needs.machine.card is None:
        yield "note: the memory of a GPU is not known; name the card with resources.node.gpu to check it"


def _print_changes(config: Config) -> None:
    """What the run in the run directory will make again. Raises RunDirError where ``run`` would."""
    from rlaif.stages.inputs import data_at_hand
    from rlaif.stages.pipeline import check_inputs
    from rlaif.storage.stored_run import StoredRun

    run = StoredRun.open(Path(config.run_dir))
    try:
        for change in check_inputs(data_at_hand(config), run):
            console.print(f"changed since the run used it: {change}")
    finally:
        run.close()
