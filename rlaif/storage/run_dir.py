"""The run directory: what a run leaves behind, and what lets it be resumed. Only the driver writes it.

``manifest.json`` is written last and atomically: a stage that it does not call done is not done, and is resumed
from the journal.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif.config.files import differences, dump_config, load_config
from rlaif.config.schema import Config
from rlaif.constitution.principles import Constitution
from rlaif.errors import RunDirError, RunError, StorageError, UserError
from rlaif.storage.journal import Journal
from rlaif.storage.metrics import EventLog, MetricsLog

FULL_BYTES = 64 * 1024  #: of free space, from which on a disk is called full


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
        self.journal = Journal(path / "journal.sqlite")
        self.metrics = MetricsLog(path / "metrics.jsonl")
        self.events = EventLog(path / "events.jsonl")
        self._manifest: dict[str, Any] = {"stages": {}, "finished": {}}
        if self.manifest_path.exists():
            self._manifest = json.loads(self.manifest_path.read_text())

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def model(self, name: str) -> Path:
        """Where ``sl_cai``, ``preference_model`` or ``rl_cai`` is saved; absolute, for processes elsewhere."""
        return self.path.absolute() / "models" / name

    def training_set(self, name: str) -> Path:
        """Where a training set (a parquet file) is written for Ray Data to read."""
        return self.path.absolute() / "training_sets" / f"{name}.parquet"

    def constitution(self) -> Constitution | None:
        """What the run was last worked on under; None in a new one."""
        stored = self.path / "constitution.json"
        return Constitution.model_validate_json(stored.read_text(encoding="utf-8")) if stored.exists() else None

    def keep_constitution(self, constitution: Constitution) -> None:
        write_atomically(self.path / "constitution.json", constitution.model_dump_json(indent=2) + "\n")

    def is_accounted(self, rows: str) -> bool:
        return rows in self._manifest["stages"]

    def rows(self, name: str) -> dict[str, int]:
        """What became of one kind of rows: ``rows_in``, ``rows_out``, ``quarantined``."""
        return self._manifest["stages"][name]

    def account(self, rows: str, *, rows_in: int, rows_out: int, quarantined: int) -> None:
        """Enter what became of one kind of rows (revisions, comparisons...); none may be missing."""
        if rows_in != rows_out + quarantined:
            raise RunError(
                f"{rows}: {rows_in} rows in, but {rows_out} out and {quarantined} quarantined; "
                f"a source that changed since the run began? {self.path / 'journal.sqlite'} has what was recorded"
            )
        counts = {"rows_in": rows_in, "rows_out": rows_out, "quarantined": quarantined}
        self._manifest["stages"][rows] = {"state": "done", **counts}
        self.write_manifest()
        self.events.write("rows_done", rows=rows, **counts)

    def is_finished(self, stage: str) -> bool:
        """Whether a stage of the pipeline has run to its end."""
        return stage in self._manifest["finished"]

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Run a stage of the pipeline inside; it is finished when nothing was raised."""
        self.events.write("stage_started", stage=stage)
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self._manifest["finished"][stage] = {"seconds": round(seconds, 3)}
        self.write_manifest()
        self.events.write("stage_finished", stage=stage, seconds=seconds)

    def write_manifest(self, **facts: Any) -> None:
        self._manifest.update(facts)
        write_atomically(self.manifest_path, json.dumps(self._manifest, indent=2, sort_keys=True) + "\n")

    def write_quarantine(self) -> int:
        """Export every quarantined row; returns their number."""
        lines = [json.dumps(asdict(row)) for row in self.journal.quarantined()]
        write_atomically(self.path / "quarantine.jsonl", "".join(line + "\n" for line in lines))
        return len(lines)

    def close(self) -> None:
        self.journal.close()
        self._lock.close()

    def _claim(self, config: Config) -> None:
        """Refuse a directory that was made with another configuration; write this one into a new directory.

        The gate may change: its limits decide whether a run goes on, and not what it makes.
        """
        stored = self.path / "config.yaml"
        changed = differences(load_config(stored, []), config) if stored.exists() else ["everything"]
        if not stored.exists() or all(key.startswith("labelling.gate.") for key in changed):
            write_atomically(stored, dump_config(config))
        else:
            self._lock.close()
            raise RunDirError(
                f"{self.path}: made with another configuration; different: {', '.join(changed)}; "
                "choose another run_dir=, or give the same values to resume"
            )

    @staticmethod
    def _locked(path: Path) -> Any:
        lock = (path / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirError(f"{path}: another process is running here; wait for it or choose run_dir=") from None
        return lock


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raises StorageError for whatever fails inside because the disk of the run directory ``path`` is full.

    Libraries report that in many ways (OSError, RuntimeError, errors of their own, groups of them), so the disk is
    asked, too.
    """
    try:
        yield
    except (UserError, StorageError):
        raise
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        if "No space left on device" not in told and shutil.disk_usage(path).free > FULL_BYTES:
            raise
        message = f"{path}: the disk is full; free some of it and run the same command again to resume"
        raise StorageError(message) from error


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that a reader finds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{time.monotonic_ns()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
