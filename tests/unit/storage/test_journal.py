import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from rlaif.errors import RunDirError, StorageError
from rlaif.records import Prompt, Quarantined, RevisionChain, Round, Status, Turn
from rlaif.storage.journal import Journal
from rlaif.storage.record_schema import from_json, to_json

CHAIN = RevisionChain(
    id="f:1",
    source_file="f",
    source_row=1,
    status=Status.OK,
    error=None,
    seconds=0.5,
    seed=2**62,
    model_version="m@1",
    axis="red_team",
    prompt=(Turn(role="human", text="hé\nllo"),),
    response="r",
    rounds=(Round(principle_id="p", critique="c", revision="v"),),
    token_ids=(1, 2),
    truncated=False,
)


def chain(row: int) -> RevisionChain:
    return replace(CHAIN, id=f"f:{row}", source_row=row)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def test_a_record_survives_the_journal_exactly():
    assert from_json(RevisionChain, to_json(CHAIN)) == CHAIN


def test_records_come_back_in_source_order(journal):
    for row in (10, 2, 1):
        journal.add_all("revisions", [chain(row)])
    assert [r.source_row for r in journal.records(RevisionChain, "revisions")] == [1, 2, 10]


def test_nothing_can_be_recorded_twice(journal):
    journal.add_all("revisions", [CHAIN])
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_all("revisions", [CHAIN])
    assert journal.count("revisions") == 1


def test_pending_leaves_out_what_is_recorded_or_quarantined(journal):
    journal.add_all("revisions", [chain(1)])
    journal.quarantine(Quarantined(id="f:2", file="f", row=2, kind="revisions", cause="x"))
    assert [r.id for r in journal.pending("revisions", [chain(1), chain(2), chain(3)])] == ["f:3"]
    assert len(list(journal.pending("other", [chain(1)]))) == 1


def test_export_to_parquet(journal, tmp_path):
    for row in range(5):
        journal.add_all("revisions", [chain(row)])
    path = tmp_path / "out" / "revisions.parquet"
    assert journal.export(RevisionChain, "revisions", path) == 5
    rows = pq.read_table(path).to_pylist()
    assert [r["id"] for r in rows] == [f"f:{i}" for i in range(5)]
    assert rows[0]["rounds"] == [{"principle_id": "p", "critique": "c", "revision": "v", "flaw": None}]
    assert rows[0]["status"] == "ok"


def test_batches_after_a_checkpoint_are_forgotten(journal):
    for batch in range(4):
        journal.add_all("rollouts", [chain(batch)], batch)
        bad = Quarantined(id=f"f:bad{batch}", file="f", row=9, kind="rollouts", batch=batch, cause="x")
        journal.quarantine(bad)
    journal.add_all("revisions", [chain(9)])
    journal.quarantine(Quarantined(id="f:8", file="f", row=8, kind="revisions", cause="x"))
    journal.forget_from("rollouts", 2)
    assert [r.source_row for r in journal.records(RevisionChain, "rollouts")] == [0, 1]
    assert [row.id for row in journal.quarantine_entries()] == ["f:8", "f:bad0", "f:bad1"]
    assert journal.num_quarantined("rollouts") == 2
    assert journal.count("revisions") == 1


def test_batches_are_all_or_nothing(journal):
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_all("rollouts", [chain(1), chain(1)])
    assert journal.count("rollouts") == 0


def test_records_of_one_batch_and_of_all(journal):
    for batch in (2, 1):
        journal.add_all("refresh_comparisons", [chain(batch)], batch)
    assert [r.source_row for r in journal.records(RevisionChain, "refresh_comparisons")] == [1, 2]
    assert [r.source_row for r in journal.records(RevisionChain, "refresh_comparisons", 2)] == [2]
    assert journal.count("refresh_comparisons") == 2
    assert [r.id for r in journal.pending("refresh_comparisons", [chain(1), chain(2)], 2)] == ["f:1"]


def test_forgotten_records_are_pending_again(journal):
    journal.add_all("preferences", [chain(1), chain(2)])
    journal.forget("preferences", ["f:2"])
    assert [r.id for r in journal.pending("preferences", [chain(1), chain(2)])] == ["f:2"]


# ---------------------------------------------------------------------------------------------- other formats
FORMAT_1 = """
CREATE TABLE IF NOT EXISTS records (
    stage TEXT NOT NULL, id TEXT NOT NULL, source_file TEXT NOT NULL, source_row INTEGER NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (stage, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
    stage TEXT NOT NULL, id TEXT NOT NULL, source_file TEXT NOT NULL, source_row INTEGER NOT NULL,
    cause TEXT NOT NULL, PRIMARY KEY (stage, id)) WITHOUT ROWID;
"""


@pytest.fixture
def old_journal(tmp_path):
    """Rows of two kinds, one in batches, as they were journalled before kinds and batches had columns."""
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode=WAL;" + FORMAT_1)
        for row in (1, 2):
            db.execute("INSERT INTO records VALUES ('revisions', ?, 'f', ?, ?)", (f"f:{row}", row, to_json(chain(row))))
        for batch in range(12):
            values = (f"rollouts/{batch:08d}", f"f:{batch}", batch, to_json(chain(batch)))
            db.execute("INSERT INTO records VALUES (?, ?, 'f', ?, ?)", values)
            db.execute("INSERT INTO quarantine VALUES (?, ?, 'f', 9, 'x')", (values[0], f"f:bad{batch}"))
        db.execute("INSERT INTO quarantine VALUES ('read', 'f:3', 'f', 3, 'not JSON')")
        db.commit()
    return path


def test_a_journal_of_format_1_is_read_with_its_batches(old_journal):
    for _ in range(2):  # rewritten when it is opened first
        journal = Journal(old_journal)
        assert [r.source_row for r in journal.records(RevisionChain, "revisions")] == [1, 2]
        assert [r.source_row for r in journal.records(RevisionChain, "rollouts")] == list(range(12))
        assert [r.source_row for r in journal.records(RevisionChain, "rollouts", 11)] == [11]
        assert (journal.count("rollouts"), journal.num_quarantined("rollouts")) == (12, 12)
        assert [r.id for r in journal.pending("rollouts", [chain(3), chain(4)], 3)] == ["f:4"]
        assert [row.stage for row in journal.quarantine_entries()] == [
            "read",
            *(f"rollouts/{b:08d}" for b in range(12)),
        ]
        journal.close()
    journal = Journal(old_journal)
    journal.forget_from("rollouts", 2)
    assert (journal.count("rollouts"), journal.num_quarantined("rollouts"), journal.count("revisions")) == (2, 2, 2)
    journal.close()


def test_a_journal_of_format_1_that_cannot_be_rewritten_stays_as_it_was(old_journal):
    def contents() -> list:
        with closing(sqlite3.connect(old_journal)) as db:
            return [db.execute(f"SELECT * FROM {table}").fetchall() for table in ("records", "quarantine")]

    before = contents()
    with closing(sqlite3.connect(old_journal)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        reader.execute("UPDATE quarantine SET cause = cause")  # holds the lock for writing
        with pytest.raises(StorageError, match="cannot write"):
            Journal(old_journal)
        reader.rollback()
    assert contents() == before
    assert Journal(old_journal).count("rollouts") == 12


def test_a_journal_of_a_later_format_is_refused_by_name(tmp_path):
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(RunDirError, match=r"journal\.sqlite: format 3: this version reads formats 1 to 2; use"):
        Journal(path)


KILLED = """
import os, signal, sys
from pathlib import Path
from rlaif.storage.journal import Journal
from rlaif.records import Quarantined
journal = Journal(Path(sys.argv[1]))
for row in range(1000):
    journal.quarantine(Quarantined(id=str(row), file="f", row=row, kind="s", cause="c"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_rows_outlive_a_killed_process(tmp_path):
    path = tmp_path / "journal.sqlite"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == -signal.SIGKILL
    assert Journal(path).num_quarantined("s") == 1000


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        Journal(tmp_path / "file" / "journal.sqlite")


def test_a_full_disk_is_a_storage_error_and_loses_nothing(journal):
    journal.add_all("revisions", [chain(1)])
    journal._db.execute("PRAGMA max_page_count=1")  # SQLite's own way to simulate a full disk
    with pytest.raises(StorageError, match="run the same command again"):
        for row in range(2, 5000):
            journal.add_all("revisions", [replace(chain(row), response="x" * 4000)])
    assert next(journal.records(RevisionChain, "revisions")) == chain(1)


def test_prompts_have_the_ids_that_pending_asks_for(journal):
    prompt = Prompt(id="a:1", source_file="a", source_row=1, axis="helpful", turns=(Turn(role="human", text="hi"),))
    assert list(journal.pending("x", [prompt])) == [prompt]
