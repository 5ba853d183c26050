"""The run directory: what a run leaves behind, and what lets it be resumed. Only the driver writes it.

A machine may be lost at any moment, and with it whatever the disk does not hold. So what a file says is on disk before
the file is, in this order:

1. Rows are committed to the journal as they come back. The disk need not hold them yet: rows that are forgotten are
   made again.
2. Tables, training sets and reports are written beside their place, settled, renamed, and their directory is settled
   (``places.writing``). So they are whole or absent.
3. Models and checkpoints are settled file by file after their trainer has saved them.
4. ``settle``: the journal and the logs.
5. ``manifest.json``, or the ``manifest.json`` of a checkpoint, is written as in 2. A stage or checkpoint that no
   manifest lists has not finished, and is made again.

What is removed goes the other way: first the manifest that lists it, settled; then the rest. To settle is to wait until
the disk holds it (fsync).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TextIO

from rlaif.config.files import config_hash, differences
from rlaif.config.resuming import may_change
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.errors import RlaifError, RunDirError, RunError, StorageError, UserError
from rlaif.places.writing import make_directory, settle_tree
from rlaif.storage.damage import check_places, damaged
from rlaif.storage.files import write_atomically
from rlaif.storage.journal import Journal
from rlaif.storage.manifest import MANIFEST_FILE, new_manifest, read_manifest, write_manifest
from rlaif.storage.metrics import EventLog, MetricsLog
from rlaif.storage.ownership import check_own_run
from rlaif.storage.stored_config import CONFIG_FILE, stored_config, write_config
from rlaif.storage.stored_run import StoredRun
from rlaif.storage.tables import EXPORTS


class RunDir(StoredRun):
    """An open, locked run directory."""

    def __init__(self, path: Path, config: Config) -> None:
        try:
            make_directory(path)
            check_own_run(path)
            check_places(path)
            self._lock = lock(path)
            self._claim(path, config)
        except OSError as error:
            raise StorageError(f"{path}: cannot write the run directory: {error}") from error
        try:
            journal = Journal(path / "journal.sqlite")
            is_new = journal.is_empty() and not (path / MANIFEST_FILE).exists()
            super().__init__(path, new_manifest() if is_new else read_manifest(path), journal)
            self.metrics = MetricsLog(path / "metrics.jsonl")
            self.events = EventLog(path / "events.jsonl")
        except RlaifError:
            self._lock.close()
            raise
        if is_new or "config" not in self._manifest:
            self.write_manifest(config=config_hash(config))  # before the first row

    def keep_constitution(self, constitution: Constitution) -> None:
        write_atomically(self.path / "constitution.json", constitution.model_dump_json(indent=2) + "\n")

    def keep_inputs(self, hashes: Mapping[str, str]) -> None:
        self.write_manifest(inputs={**self.inputs, **hashes})

    @property
    def began(self) -> date:
        """The day on which the run began (UTC), which is the day that chat templates are told, also after a resume."""
        if "began" not in self._manifest:
            self.write_manifest(began=datetime.now(UTC).date().isoformat())
        return date.fromisoformat(self._manifest["began"])

    def account(self, kind: str, *, rows_in: int, rows_out: int, quarantined: int, cut: int = 0) -> None:
        """Enter what became of the rows of ``kind`` (revisions, comparisons...); ``cut``: those of ``rows_out`` whose
        dialogue was shortened. Raises RunError if any is missing."""
        if rows_in != rows_out + quarantined:
            raise RunError(
                f"{kind}: {rows_in} rows in, but {rows_out} out and {quarantined} quarantined; "
                f"{self.path / 'journal.sqlite'} has what was recorded"
            )
        counts = {"rows_in": rows_in, "rows_out": rows_out, "quarantined": quarantined}
        counts |= {"cut": cut} if cut else {}
        entry = {"state": "done", **counts}
        if self._manifest["rows"].get(kind) != entry:
            self._manifest["rows"][kind] = entry
            self.write_manifest()
            self.events.write("rows_done", rows=kind, **counts)

    def export(self, kind: str) -> int:
        """Write the table of ``kind``; returns the number of its rows."""
        name, record_type = EXPORTS[kind]
        return self.journal.export(record_type, kind, self.path / name)

    @contextmanager
    def time_stage(self, stage: str, made_models: Callable[[], Mapping[str, str]] = dict) -> Iterator[None]:
        """Run a stage of the pipeline inside the block; it has finished unless an error is raised. Then
        ``made_models`` gives the hashes of the models that it has made, by name."""
        self.events.write("stage_started", stage=stage)
        started = time.monotonic()
        try:
            yield
        finally:
            self.write_quarantine()
        seconds = time.monotonic() - started
        self._manifest["stages"][stage] = {"seconds": round(seconds, 3)}
        self.write_manifest(models={**self.made_models, **made_models()})
        self.events.write("stage_finished", stage=stage, seconds=seconds)

    def reopen(self, stages: Sequence[str]) -> None:
        """Let ``stages`` be run again."""
        for stage in stages:
            self._manifest["stages"].pop(stage, None)
        self.write_manifest()
        self.events.write("stages_reopened", stages=list(stages))

    def settle(self) -> None:
        """Returns once the disk holds all rows, metrics and events so far."""
        self.journal.settle()
        self.metrics.settle()
        self.events.settle()

    def settle_models(self, names: Iterable[str]) -> None:
        """Returns once the disk holds those models of ``names`` that have been saved. May be called in a thread."""
        for name in names:
            if self.model(name).is_dir():
                settle_tree(self.model(name))

    def write_manifest(self, **facts: Any) -> None:
        """Write the manifest with ``facts`` in it, after what it says."""
        self._manifest.update(facts)
        self.settle()
        write_manifest(self.path, self._manifest)

    def write_quarantine(self) -> int:
        """Export every quarantined row; returns their number."""
        lines = [
            json.dumps({key: getattr(row, key) for key in ("id", "file", "row", "stage", "cause", "fault")})
            for row in self.journal.quarantine_entries()
        ]
        write_atomically(self.path / "quarantine.jsonl", "".join(line + "\n" for line in lines))
        return len(lines)

    def close(self) -> None:
        super().close()
        self._lock.close()

    def _claim(self, path: Path, config: Config) -> None:
        """Refuse a directory that was made with another configuration; write this one into a new directory."""
        try:
            check_stored_config(path, config)
        except UserError:
            self._lock.close()
            raise
        write_config(path, config)


def lock(path: Path) -> TextIO:
    """The lock of a run directory, until it is closed. Raises RunDirError when another process has it."""
    place = path / ".lock"
    if os.path.lexists(place) and not place.is_file():
        raise damaged(place, "is not a file")
    file = place.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunDirError(f"{path}: another process is running here; wait for it or choose run_dir=") from None
    return file


def check_stored_config(path: Path, config: Config) -> None:
    """Raises RunDirError when ``path`` is a run directory that was made with another configuration, or by a later
    version.

    What ``may_change`` allows may differ: limits that decide whether a run continues, machines, and the path of the
    directory, which can be moved or copied.
    """
    changed = differences(stored_config(path), config) if (path / CONFIG_FILE).exists() else []
    if changed := [key for key in changed if not may_change(key)]:
        raise RunDirError(
            f"{path}: made with another configuration; different: {', '.join(changed)}; "
            "choose another run_dir= (label and evaluate: --out), or give the same values to resume"
        )
    if not (path / MANIFEST_FILE).exists():
        return
    made_with = read_manifest(path).get("config", config_hash(config))
    if made_with != config_hash(config) and not (path / CONFIG_FILE).exists():
        raise RunDirError(
            f"{path}: made with another configuration, and {CONFIG_FILE}, which says which, is missing; "
            "put back a copy, choose another run_dir=, or give the same values to resume"
        )
