import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from rlaif.errors import StorageError
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
        journal.add("revisions", chain(row))
    assert [r.source_row for r in journal.records(RevisionChain, "revisions")] == [1, 2, 10]


def test_nothing_can_be_recorded_twice(journal):
    journal.add("revisions", CHAIN)
    with pytest.raises(sqlite3.IntegrityError):
        journal.add("revisions", CHAIN)
    assert journal.count("revisions") == 1


def test_pending_leaves_out_what_is_recorded_or_quarantined(journal):
    journal.add("revisions", chain(1))
    journal.quarantine(Quarantined(id="f:2", file="f", row=2, stage="revisions", cause="x"))
    assert [r.id for r in journal.pending("revisions", [chain(1), chain(2), chain(3)])] == ["f:3"]
    assert len(list(journal.pending("other", [chain(1)]))) == 1


def test_export_to_parquet(journal, tmp_path):
    for row in range(5):
        journal.add("revisions", chain(row))
    path = tmp_path / "out" / "revisions.parquet"
    assert journal.export(RevisionChain, "revisions", path) == 5
    rows = pq.read_table(path).to_pylist()
    assert [r["id"] for r in rows] == [f"f:{i}" for i in range(5)]
    assert rows[0]["rounds"] == [{"principle_id": "p", "critique": "c", "revision": "v", "flaw": None}]
    assert rows[0]["status"] == "ok"


def test_batches_after_a_checkpoint_are_forgotten(journal):
    for batch in range(4):
        journal.add_all(f"rollouts/{batch:08d}", [chain(batch)])
        bad = Quarantined(id=f"f:bad{batch}", file="f", row=9, stage=f"rollouts/{batch:08d}", cause="x")
        journal.quarantine(bad)
    journal.add("revisions", chain(9))
    journal.quarantine(Quarantined(id="f:8", file="f", row=8, stage="revisions", cause="x"))
    journal.forget_from("rollouts/00000002")
    assert [r.source_row for r in journal.records(RevisionChain, "rollouts/*")] == [0, 1]
    assert [row.id for row in journal.quarantined()] == ["f:8", "f:bad0", "f:bad1"]
    assert journal.num_quarantined("rollouts/*") == 2
    assert journal.count("revisions") == 1


def test_batches_are_all_or_nothing(journal):
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_all("rollouts/0", [chain(1), chain(1)])
    assert journal.count("rollouts/0") == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from rlaif.storage.journal import Journal
from rlaif.records import Quarantined
journal = Journal(Path(sys.argv[1]))
for row in range(1000):
    journal.quarantine(Quarantined(id=str(row), file="f", row=row, stage="s", cause="c"))
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
    journal.add("revisions", chain(1))
    journal._db.execute("PRAGMA max_page_count=1")  # SQLite's own way to simulate a full disk
    with pytest.raises(StorageError, match="run the same command again"):
        for row in range(2, 5000):
            journal.add("revisions", replace(chain(row), response="x" * 4000))
    assert next(journal.records(RevisionChain, "revisions")) == chain(1)


def test_prompts_have_the_ids_that_pending_asks_for(journal):
    prompt = Prompt(id="a:1", source_file="a", source_row=1, axis="helpful", turns=(Turn(role="human", text="hi"),))
    assert list(journal.pending("x", [prompt])) == [prompt]
