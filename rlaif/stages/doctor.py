"""``rlaif doctor``: every file of a run directory is read, and what can be mended is.

What cannot be read is set aside as ``NAME.damaged`` (or ``NAME.2.damaged``...), never deleted. What the journal holds
is written again from it; what nothing holds is made again by the next run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.errors import DataError, RunDirError, StorageError
from rlaif.evaluation.answers import SNAPSHOTS
from rlaif.evaluation.audit.exchange import KEY, read_key
from rlaif.evaluation.evaluations import write_evaluation
from rlaif.evaluation.report import report_text, write_report
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Answer
from rlaif.stages.label import write_quality
from rlaif.stages.pipeline import STAGES, lost_rows, other_models, reopen, story
from rlaif.stages.reinforcement.checkpoints import remove_damaged
from rlaif.stages.reinforcement.reinforce import CHECKPOINTS, can_go_on, start_over
from rlaif.stages.user_data import UserData
from rlaif.storage.damage import DamagedError, misplaced, set_aside
from rlaif.storage.journal import Journal
from rlaif.storage.manifest import MANIFEST_FILE, new_manifest, read_manifest, write_manifest
from rlaif.storage.metrics import drop_half_line, drop_unreadable
from rlaif.storage.ownership import check_own_run
from rlaif.storage.run_dir import RunDir, lock
from rlaif.storage.stored_config import CONFIG_FILE, stored_config
from rlaif.storage.tables import EXPORTS, read_batches
from rlaif.training.training_sets import read_training_set

CHECKED_ROWS = 5_000
#: What each log holds, and the stages that have written to it when they end.
LOGS = {
    "metrics.jsonl": ("the metrics by step", ("supervise", "fit_preference_model", "reinforce")),
    "events.jsonl": ("what happened in the run", tuple(STAGES)),
}


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What is wrong with a file, and what has been done about it or, unless it is ``mended``, has to be."""

    flaw: str
    remedy: str
    mended: bool = True

    def __str__(self) -> str:
        return f"{self.flaw}: {self.remedy}"


def examine(path: Path) -> Iterator[Repair]:
    """Check the run directory ``path`` and mend it; yields what was found as it goes.

    Raises RunDirError when it is none, is of another format, or is in use; StorageError when it cannot be written.
    """
    if not any((path / name).is_file() for name in (CONFIG_FILE, MANIFEST_FILE, "journal.sqlite")):
        raise RunDirError(f"{path}: not a run directory")
    check_own_run(path)
    try:
        with lock(path):
            yield from _misplaced(path)
            yield from _left_behind(path)
            yield from _ends_of_logs(path)
            yield from _foundations(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be mended: {error.strerror}; copy it to where it can be written") from error
    try:
        config = stored_config(path)
    except RunDirError as error:
        yield Repair(flaw=str(error), remedy="then run doctor again, for the rest", mended=False)
        return
    with closing(RunDir(path, config)) as run_dir:
        yield from _books(config, run_dir)
        yield from _records(run_dir)
        yield from _copies(config, run_dir)
        yield from _logs(run_dir)
        yield from _checkpoints(config, run_dir)
        yield from _models(config, run_dir)
        yield from _report(config, run_dir)


# ------------------------------------------------------------------------------------- what all else is opened with
def _misplaced(path: Path) -> Iterator[Repair]:
    """What is no file, or no directory, where one has to be; what was there before is missing from here on."""
    for error in [*misplaced(path)]:
        set_aside(error.path)
        yield Repair(flaw=str(error), remedy="set aside")


def _left_behind(path: Path) -> Iterator[Repair]:
    """Files that were being written when a process ended; nothing refers to them."""
    unfinished = [file for file in path.rglob(".*") if file.is_file() and _is_unfinished(file.name)]
    for file in (*unfinished, *path.glob("driver.json")):
        file.unlink()
        yield Repair(flaw=f"{file}: left behind by a process that has ended", remedy="removed")


def _is_unfinished(name: str) -> bool:
    """Whether ``places.writing`` or ``storage.files`` names files so that are not whole yet."""
    suffix = name.rpartition(".")[2]
    return suffix == "unfinished" or (suffix.isdecimal() and name.count(".") > 1)


def _foundations(path: Path) -> Iterator[Repair]:
    """The manifest and the journal."""
    try:
        manifest = read_manifest(path) if _has_begun(path) else new_manifest()
    except DamagedError as error:
        set_aside(path / MANIFEST_FILE)
        write_manifest(path, new_manifest())
        with closing(Journal(path / "journal.sqlite")) as journal:
            start_over(path, journal)
        yield Repair(flaw=str(error), remedy="begun anew: all stages are run again; rows are kept until reinforcement")
        return
    if not (path / "journal.sqlite").is_file() and not any(rows["rows_out"] for rows in manifest["rows"].values()):
        return
    if flaw := _flaw_of_journal(path / "journal.sqlite"):
        for suffix in ("", "-wal", "-shm", "-journal"):
            set_aside(path / f"journal.sqlite{suffix}")
        write_manifest(path, {**manifest, "stages": {}, "rows": {}})
        with closing(Journal(path / "journal.sqlite")) as journal:
            start_over(path, journal)
        yield Repair(flaw=flaw, remedy="begun anew: all rows and models are made again by the next run")


def _has_begun(path: Path) -> bool:
    return any((path / name).is_file() for name in (MANIFEST_FILE, "journal.sqlite"))


def _flaw_of_journal(path: Path) -> str | None:
    if not path.is_file():
        return f"{path}: is missing"
    try:
        with closing(Journal(path)) as journal:
            found = journal.find_damage()
    except DamagedError as error:
        return str(error)
    return found and f"{path}: is damaged: {found}"


# ------------------------------------------------------------------------------------------------ rows and copies
def _records(run_dir: RunDir) -> Iterator[Repair]:
    """Single rows that cannot be read, which reading them sets aside."""
    journal = run_dir.journal
    answers = {kind: Answer for kind in ("helpful_samples", *(f"answers_{snapshot}" for snapshot in SNAPSHOTS))}
    for kind, record_type in {**{kind: type for kind, (_, type) in EXPORTS.items()}, **answers}.items():
        before = journal.count(kind)
        for _ in journal.records(record_type, kind):
            pass
        if num := before - journal.count(kind):
            flaw = f"{journal.path}: {num} rows of {kind} cannot be read"
            yield Repair(flaw=flaw, remedy="quarantined; made again by the next run while nothing is built on them")


def _books(config: Config, run_dir: RunDir) -> Iterator[Repair]:
    """Rows that the manifest lists and the journal does not hold."""
    lost = lost_rows(config, run_dir)
    if lost:
        first = list(lost)[-1]
        reopen(UserData(config=config, paths={}), run_dir, first)
        flaw = "; ".join(str(one) for stage in lost.values() for one in stage)
        yield Repair(flaw=f"{run_dir.path}: {flaw}", remedy=f"{first} and the stages after it are run again")


def _copies(config: Config, run_dir: RunDir) -> Iterator[Repair]:
    """Tables, which the journal holds, too, and the rest of what is derived from it."""
    for kind, (name, _) in EXPORTS.items():
        path = run_dir.path / name
        flaw = _flaw_of_table(path, run_dir.journal.count(kind) if run_dir.is_accounted(kind) else None)
        if flaw:
            run_dir.export(kind)
            yield Repair(flaw=flaw, remedy="written again from the journal")
    try:
        lost = None if run_dir.constitution() else f"{run_dir.path / 'constitution.json'}: is missing"
    except DamagedError as error:
        lost = str(error)
    if lost:
        set_aside(run_dir.path / "constitution.json")
        run_dir.keep_constitution(load_constitution(config.constitution))
        yield Repair(flaw=lost, remedy=f"written again from {config.constitution}")


def _flaw_of_table(path: Path, num_rows: int | None) -> str | None:
    """``num_rows``: how many it must have; None while there need not be one."""
    if not path.is_file():
        return f"{path}: is missing" if num_rows else None
    try:
        found = sum(batch.num_rows for batch in read_batches(path, CHECKED_ROWS))
    except DamagedError as error:
        return str(error)
    return f"{path}: has {found} rows, the journal {num_rows}" if num_rows not in (None, found) else None


def _holds_metrics(line: Mapping[str, Any]) -> bool:
    """Whether a line holds numbers by name."""
    metrics, index = line.get("metrics"), line.get("index", line.get("step"))
    numbers = [index, *metrics.values()] if isinstance(metrics, dict) else ["none"]
    return all(number is None or _is_number(number) for number in numbers)


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # of an integer that is no floating-point number
        return False


def _ends_of_logs(path: Path) -> Iterator[Repair]:
    """What a log's next writer would drop without a word."""
    for name in LOGS:
        if num := drop_half_line(path / name):
            yield Repair(flaw=f"{path / name}: its last line was not written whole", remedy=f"{num} bytes dropped")


def _logs(run_dir: RunDir) -> Iterator[Repair]:
    path = run_dir.path
    for name, (holds, stages) in LOGS.items():
        log = path / name
        is_told = log.with_name(f"{name}.damaged").exists()
        if any(map(run_dir.is_finished, stages)) and not is_told and not (log.is_file() and log.stat().st_size):
            flaw = f"{log}: is missing or empty, although stages have finished; it held {holds}"
            yield Repair(flaw=flaw, remedy="put back a copy; nothing else depends on it", mended=False)
    checks: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        "metrics.jsonl": _holds_metrics,
        "events.jsonl": lambda line: isinstance(line.get("event"), str) and _is_number(line.get("time")),
    }
    for name, is_whole in checks.items():
        if num := drop_unreadable(path / name, is_whole):
            yield Repair(
                flaw=f"{path / name}: {num} lines cannot be read", remedy="left out; kept beside it as .damaged"
            )


# ------------------------------------------------------------------------------------------- what trainers have saved
def _checkpoints(config: Config, run_dir: RunDir) -> Iterator[Repair]:
    removed = list(remove_damaged(run_dir.path / CHECKPOINTS))
    going_on = can_go_on(run_dir, config)
    if removed and not going_on:
        start_over(run_dir.path, run_dir.journal)
    for flaw in removed:
        after = "reinforcement continues from the one before it" if going_on else "reinforcement begins anew"
        yield Repair(flaw=flaw, remedy=f"removed; {after}")


def _models(config: Config, run_dir: RunDir) -> Iterator[Repair]:
    for name in story(config):
        for model in other_models(run_dir, STAGES[name]) if run_dir.is_finished(name) else ():
            yield Repair(
                flaw=f"{run_dir.model(model)}: is not what {name} made",
                remedy=f"put back a copy, or run the configuration with --from {name}",
                mended=False,
            )
    for path in sorted(run_dir.training_set("x").parent.glob("*.parquet")):
        try:
            read_training_set(path)
        except DamagedError as error:
            yield Repair(flaw=str(error), remedy="needed until reinforcement has finished", mended=False)


def _report(config: Config, run_dir: RunDir) -> Iterator[Repair]:
    """What is measured and shown: all of it is measured again, and what was something else before has been mended."""
    path = run_dir.path
    measured: dict[str, tuple[bool, Callable[[], object]]] = {
        "quarantine.jsonl": (bool(run_dir.all_rows), run_dir.write_quarantine),
        "label_quality.json": (run_dir.is_accounted("preferences"), lambda: write_quality(run_dir)),
        "evaluation*.json*": (
            run_dir.is_finished("evaluate"),
            lambda: write_evaluation(run_dir, load_lexicon(config.miniature.lexicon)),
        ),
    }
    for pattern, (is_due, measure_again) in measured.items():
        before = _contents(path, pattern)
        if is_due:
            measure_again()
            for file in _contents(path, pattern).items() - before.items():
                yield Repair(flaw=f"{path / file[0]}: is missing, or not what the journal says", remedy="written again")
    if (path / KEY).is_file():
        try:
            read_key(path)
        except DataError as error:
            yield Repair(flaw=str(error), remedy="nothing else depends on it", mended=False)
    for flaw, name in _flaws_of_report(path):
        set_aside(path / name)
        yield Repair(flaw=flaw, remedy="set aside", mended=False)
    if (path / "report.html").exists():
        write_report(path)


def _contents(path: Path, pattern: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob(pattern) if not file.name.endswith(".damaged")}


def _flaws_of_report(path: Path) -> Iterator[tuple[str, str]]:
    """What keeps the report from being made, one after another; each is mended before the next is looked for."""
    seen: set[str] = set()
    while True:
        try:
            report_text(path)
            return
        except DamagedError as error:
            name = error.path.name
            if name in seen:
                raise
            seen.add(name)
            yield str(error), name
