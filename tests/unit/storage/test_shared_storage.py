"""Journals where memory cannot be shared: network storage, and SQLite's VFS that has no shared memory at all."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from rlaif.errors import StorageError
from rlaif.records import RevisionChain
from rlaif.storage import journal_file
from rlaif.storage.journal import Journal
from tests.unit.storage.test_journal import chain

#: Names of SQLite's VFS: the usual one, and one that locks by files and cannot share memory.
SYSTEMS = {"network storage": "unix", "no shared memory": "unix-dotfile"}


@pytest.fixture(params=SYSTEMS)
def path(request, tmp_path, monkeypatch) -> Path:
    """Of a journal that is to be on such storage."""
    vfs = SYSTEMS[request.param]
    opened = journal_file.open_database
    monkeypatch.setattr(journal_file, "open_database", lambda path, options="": opened(path, f"{options}&vfs={vfs}"))
    if vfs == "unix":
        monkeypatch.setattr(journal_file, "is_on_this_machine", lambda path: False)
    return tmp_path / "journal.sqlite"


def companions(path: Path) -> set[str]:
    return {file.name.removeprefix(path.name) for file in path.parent.glob(f"{path.name}*")} - {"", ".lock"}


def rows_of(journal: Journal) -> list[int]:
    return [record.source_row for record in journal.records(RevisionChain, "revisions")]


def test_a_journal_is_written_settled_and_read_beside_its_driver_without_a_log(path):
    with closing(Journal(path)) as journal:
        for row in range(1, 6):
            journal.add_all("revisions", [chain(row)])
            journal.settle()
            with closing(Journal(path, read_only=True)) as reader:
                first = reader.records(RevisionChain, "revisions")
                assert next(first).source_row == 1
                journal.add_all("comparisons", [chain(row)])  # a reader does not keep the writer waiting
                assert len(list(first)) == row - 1
                assert reader.find_damage() is None
            assert companions(path) <= {"-journal"}, "neither a log nor shared memory"
        assert rows_of(journal) == [1, 2, 3, 4, 5]
    with closing(Journal(path)) as journal:
        assert rows_of(journal) == [1, 2, 3, 4, 5]


def test_a_run_that_moves_from_a_disk_to_such_storage_goes_on(path):
    with pytest.MonkeyPatch.context() as local:
        local.setattr(journal_file, "open_database", partial(_connect, "unix"))
        local.setattr(journal_file, "is_on_this_machine", lambda path: True)
        with closing(Journal(path)) as journal:
            journal.add_all("revisions", [chain(1)])
            assert "-wal" in companions(path)
    with closing(Journal(path)) as journal:
        journal.add_all("revisions", [chain(2)])
        assert companions(path) <= {"-journal"}
        assert rows_of(journal) == [1, 2]


def _connect(vfs: str, path: Path, options: str = "") -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{options}&vfs={vfs}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


KILLED = """
import os, signal, sys
from pathlib import Path
from rlaif.storage import journal_file
from rlaif.storage.journal import Journal
from tests.unit.storage.test_journal import chain
journal_file.is_on_this_machine = lambda path: False
journal = Journal(Path(sys.argv[1]))
journal.add_all("revisions", [chain(1)])
journal._db.execute("PRAGMA cache_size=1")
journal._db.execute("BEGIN")
for row in range(2, 500):
    copy = "SELECT kind, batch, ?, source_file, ?, record, fingerprint FROM records WHERE id = 'f:1'"
    journal._db.execute(f"INSERT INTO records {copy}", (f"f:{row}", row))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("read_only", [True, False])
def test_what_a_killed_driver_had_begun_is_undone_by_whoever_opens_it_next(tmp_path, monkeypatch, read_only):
    path = tmp_path / "journal.sqlite"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, cwd=Path.cwd())
    assert ended.returncode == -signal.SIGKILL
    assert path.with_name("journal.sqlite-journal").stat().st_size > 0, "it was killed in the middle"
    monkeypatch.setattr(journal_file, "is_on_this_machine", lambda path: False)
    with closing(Journal(path, read_only=read_only)) as journal:
        assert rows_of(journal) == [1]


def test_storage_that_does_not_lock_is_refused_by_name(tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise sqlite3.OperationalError("locking protocol")  # as SQLite says on Lustre without flock

    monkeypatch.setattr("rlaif.storage.journal.open_for_writing", refuse)
    with pytest.raises(StorageError, match=r"journal\.sqlite: .*locking protocol; .* locks files .*run_dir="):
        Journal(tmp_path / "journal.sqlite")


def test_a_journal_that_somebody_keeps_locked_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_file, "LOCK_TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"journal\.sqlite: another process keeps it locked"):
            Journal(tmp_path / "journal.sqlite")
