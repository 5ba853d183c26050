"""The run directory: what a run leaves behind, and what lets it be resumed. Only the driver writes it.

``manifest.json`` is written last and atomically: a stage that it does not list has not finished, and is resumed from
the journal.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rlaif.config.files import differences, dump_config, load_config
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.errors import RunDirError, RunError, StorageError, UserError
from rlaif.storage.files import write_atomically
from rlaif.storage.journal import Journal
from rlaif.storage.manifest import MANIFEST_FILE, Manifest, new_manifest, read_manifest, write_manifest
from rlaif.storage.metrics import EventLog, MetricsLog


class RunDir:
    """An open, locked run directory."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked(path)
            self._claim(config)
        except OSError as error:
            raise StorageError(f"{path}: cannot write the run directory: {error}") from error
        try:
            is_new = not (path / MANIFEST_FILE).exists()
            self._manifest: Manifest = new_manifest() if is_new else read_manifest(path)
            self.journal = Journal(path / "journal.sqlite")
        except RunDirError:
            self._lock.close()
            raise
        self.metrics = MetricsLog(path / "metrics.jsonl")
        self.events = EventLog(path / "events.jsonl")

    def model(self, name: str) -> Path:
        """Where ``sl_cai``, ``preference_model`` or ``rl_cai`` is saved; absolute, for processes elsewhere."""
        return self.path.absolute() / "models" / name

    def training_set(self, name: str) -> Path:
        """Where a training set (a parquet file) is written for Ray Data to read."""
        return self.path.absolute() / "training_sets" / f"{name}.parquet"

    def constitution(self) -> Constitution | None:
        """The one that the run last used; None in a new run."""
        return stored_constitution(self.path)

    def keep_constitution(self, constitution: Constitution) -> None:
        write_atomically(self.path / "constitution.json", constitution.model_dump_json(indent=2) + "\n")

    def is_accounted(self, kind: str) -> bool:
        return kind in self._manifest["rows"]

    def rows(self, kind: str) -> dict[str, int]:
        """What became of the rows of ``kind``: ``rows_in``, ``rows_out``, ``quarantined``."""
        counts: dict[str, int] = self._manifest["rows"][kind]
        return counts

    def account(self, kind: str, *, rows_in: int, rows_out: int, quarantined: int) -> None:
        """Enter what became of the rows of ``kind`` (revisions, comparisons...). Raises RunError if any is missing."""
        if rows_in != rows_out + quarantined:
            raise RunError(
                f"{kind}: {rows_in} rows in, but {rows_out} out and {quarantined} quarantined; "
                f"a source that changed since the run began? {self.path / 'journal.sqlite'} has what was recorded"
            )
        counts = {"rows_in": rows_in, "rows_out": rows_out, "quarantined": quarantined}
        self._manifest["rows"][kind] = {"state": "done", **counts}
        self.write_manifest()
        self.events.write("rows_done", rows=kind, **counts)

    def is_finished(self, stage: str) -> bool:
        """Whether a stage of the pipeline has run to its end."""
        return stage in self._manifest["stages"]

    @contextmanager
    def time_stage(self, stage: str) -> Iterator[None]:
        """Run a stage of the pipeline inside the block; it has finished unless an error is raised."""
        self.events.write("stage_started", stage=stage)
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self._manifest["stages"][stage] = {"seconds": round(seconds, 3)}
        self.write_manifest()
        self.events.write("stage_finished", stage=stage, seconds=seconds)

    def write_manifest(self, **facts: Any) -> None:
        self._manifest.update(facts)
        write_manifest(self.path, self._manifest)

    def write_quarantine(self) -> int:
        """Export every quarantined row; returns their number."""
        lines = [
            json.dumps({"id": row.id, "file": row.file, "row": row.row, "stage": row.stage, "cause": row.cause})
            for row in self.journal.quarantine_entries()
        ]
        write_atomically(self.path / "quarantine.jsonl", "".join(line + "\n" for line in lines))
        return len(lines)

    def close(self) -> None:
        self.journal.close()
        self._lock.close()

    def _claim(self, config: Config) -> None:
        """Refuse a directory that was made with another configuration; write this one into a new directory."""
        try:
            check_stored_config(self.path, config)
        except UserError:
            self._lock.close()
            raise
        write_atomically(self.path / "config.yaml", dump_config(config))

    @staticmethod
    def _locked(path: Path) -> TextIO:
        lock = (path / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirError(f"{path}: another process is running here; wait for it or choose run_dir=") from None
        return lock


def check_stored_config(path: Path, config: Config) -> None:
    """Raises RunDirError when ``path`` is a run directory that was made with another configuration, or by a later
    version.

    The gate may change: its limits decide whether a run continues, not what it makes.
    """
    stored = path / "config.yaml"
    changed = differences(load_config(stored, []), config) if stored.exists() else []
    if not all(key.startswith("labelling.gate.") for key in changed):
        raise RunDirError(
            f"{path}: made with another configuration; different: {', '.join(changed)}; "
            "choose another run_dir=, or give the same values to resume"
        )
    if (path / MANIFEST_FILE).exists():
        read_manifest(path)


def stored_constitution(path: Path) -> Constitution | None:
    """The one that the run in ``path`` last used; None in a new run."""
    stored = path / "constitution.json"
    return Constitution.model_validate_json(stored.read_text(encoding="utf-8")) if stored.exists() else None
