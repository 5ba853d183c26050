import math
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict, replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import DataError, RunDirError, StorageError
from rlaif.records import Judgement, Prompt, Quarantined, RevisionChain, Round, Status, Turn
from rlaif.storage.damage import DamagedError
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


CHAIN_WITH_NULL = to_json(CHAIN).replace(b'"seconds":0.5', b'"seconds":null')


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


# ------------------------------------------------------------------------------------------------ what changed
def made_of(row: RevisionChain) -> str:
    return f"{row.prompt[0].text}"


def edited(row: int, text: str) -> RevisionChain:
    return replace(chain(row), prompt=(Turn(role="human", text=text),))


def record_all(journal, rows) -> None:
    journal.add_all("revisions", rows, fingerprints={row.id: made_of(row) for row in rows})


def survey(journal, rows) -> dict[str, int]:
    found = asdict(journal.survey("revisions", rows, made_of))
    journal.drop_outdated("revisions")
    return {name: number for name, number in found.items() if number}


def test_nothing_is_outdated_while_nothing_changes(journal):
    record_all(journal, [chain(1), chain(2)])
    assert survey(journal, [chain(1), chain(2), chain(3)]) == {"num_rows": 3, "kept": 2}
    assert [row.id for row in journal.pending("revisions", [chain(1), chain(2), chain(3)])] == ["f:3"]


def test_a_record_that_was_made_of_something_else_is_made_again(journal):
    record_all(journal, [chain(1), chain(2)])
    now = [edited(1, "other"), chain(2)]
    assert survey(journal, now) == {"num_rows": 2, "kept": 1, "outdated": 1}
    assert [row.id for row in journal.pending("revisions", now)] == ["f:1"]


def test_a_record_whose_row_is_gone_is_left_out_and_comes_back_with_its_row(journal):
    record_all(journal, [chain(1), chain(2)])
    assert survey(journal, [chain(2)]) == {"num_rows": 1, "kept": 1, "gone": 1}
    assert [row.id for row in journal.records(RevisionChain, "revisions")] == ["f:2"]
    assert survey(journal, [chain(1), chain(2)]) == {"num_rows": 2, "kept": 1, "restored": 1}
    assert list(journal.records(RevisionChain, "revisions")) == [chain(1), chain(2)]


def test_an_outdated_record_is_taken_up_again_when_its_inputs_are_back(journal):
    record_all(journal, [chain(1)])
    survey(journal, [edited(1, "other")])
    record_all(journal, [edited(1, "other")])
    assert survey(journal, [chain(1)]) == {"num_rows": 1, "restored": 1, "outdated": 1}
    assert list(journal.records(RevisionChain, "revisions")) == [chain(1)]


def test_a_row_that_moved_keeps_its_record_and_gets_its_new_place(journal):
    record_all(journal, [chain(1), chain(2)])
    moved = [replace(chain(2), source_row=1), replace(chain(1), source_file="g", source_row=7)]
    assert survey(journal, moved) == {"num_rows": 2, "kept": 2}
    assert list(journal.records(RevisionChain, "revisions")) == moved


def test_only_what_failed_for_a_cause_outside_the_row_is_tried_again(journal):
    for row, fault in ((1, "row"), (2, "outside")):
        entry = Quarantined(id=f"f:{row}", file="f", row=row, kind="revisions", fault=fault, cause="x")
        journal.quarantine(entry, made_of(chain(row)))
    assert survey(journal, [chain(1), chain(2)]) == {"num_rows": 2, "retried": 1, "quarantined": 1}
    assert [row.id for row in journal.pending("revisions", [chain(1), chain(2)])] == ["f:2"]


def test_a_bad_row_is_tried_again_once_it_has_changed(journal):
    journal.quarantine(Quarantined(id="f:1", file="f", row=1, kind="revisions", cause="x"), made_of(chain(1)))
    assert survey(journal, [edited(1, "mended")]) == {"num_rows": 1}
    assert [row.id for row in journal.pending("revisions", [chain(1)])] == ["f:1"]


def test_a_timeout_is_tried_again(journal):
    record_all(journal, [replace(chain(1), status=Status.TIMEOUT), chain(2)])
    assert survey(journal, [chain(1), chain(2)]) == {"num_rows": 2, "kept": 1, "retried": 1}
    assert [row.id for row in journal.pending("revisions", [chain(1), chain(2)])] == ["f:1"]


def test_other_kinds_and_batches_are_left_alone(journal):
    journal.add_all("rollouts", [chain(1)], 3)
    journal.add_all("preferences", [chain(1)])
    assert survey(journal, []) == {}
    assert (journal.count("rollouts"), journal.count("preferences")) == (1, 1)


def test_changes_of_a_source_are_counted_from_what_was_kept(journal):
    assert not journal.knows_source("data.red_team")
    journal.find_source("data.red_team", ["a", "b", "c"])
    journal.keep_source("data.red_team")
    journal.find_source("data.helpful", ["x"])
    journal.keep_source("data.helpful")
    for _ in range(2):  # until it is kept
        found = journal.find_source("data.red_team", ["b", "c", "d", "e"])
        assert (found.num_rows, found.new, found.gone) == (4, 2, 1)
    journal.keep_source("data.red_team")
    found = journal.find_source("data.red_team", ["b", "c", "d", "e"])
    assert (found.new, found.gone) == (0, 0)
    assert journal.knows_source("data.helpful") and not journal.knows_source("data.votes")


def test_a_journal_is_read_beside_the_driver_that_writes_it(journal):
    record_all(journal, [chain(1)])
    reader = Journal(journal.path, read_only=True)
    assert reader.survey("revisions", [edited(1, "other")], made_of).outdated == 1
    with pytest.raises(StorageError, match="cannot write"):
        reader.add_all("revisions", [chain(2)])
    reader.close()
    assert journal.count("revisions") == 1


@pytest.mark.parametrize(("written", "called"), [(0, 1), (2, 2), (4, 4)])
def test_a_journal_of_another_format_is_refused_by_name(tmp_path, written, called):
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE records (id)")
        db.execute(f"PRAGMA user_version = {written}")
    with pytest.raises(
        RunDirError, match=rf"journal\.sqlite: format {called}: this version goes on with format 3; use"
    ):
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


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_journal_is_named(tmp_path, read_only):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(DamagedError, match=r"journal\.sqlite: is damaged: file is not a database; it holds all rows"):
        Journal(path, read_only=read_only)


# ---------------------------------------------------------------------------------- what could not be read back
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"seconds": math.nan}, "seconds is nan"),
        ({"seconds": math.inf}, "seconds is inf"),
        ({"rounds": (Round(principle_id="p", critique="\ud800", revision="v"),)}, "surrogates"),
    ],
)
def test_a_record_that_could_not_be_read_back_is_quarantined_and_the_others_are_kept(journal, changes, cause):
    journal.add_all("revisions", [chain(1), replace(chain(2), **changes), chain(3)], fingerprints={"f:2": "made of"})
    assert [r.source_row for r in journal.records(RevisionChain, "revisions")] == [1, 3]
    (entry,) = journal.quarantine_entries()
    assert (entry.id, entry.row, entry.fault) == ("f:2", 2, "outside") and cause in entry.cause


@given(value=st.floats(), place=st.sampled_from(["logprob_a", "logprob_b"]))
def test_a_record_is_refused_or_comes_back_exactly(value, place):
    judgement = replace(Judgement(principle_id="p", order=1, logprob_a=-1.0, logprob_b=-2.0), **{place: value})
    try:
        stored = to_json(judgement)
    except DataError as error:
        assert not math.isfinite(value) and place in str(error)
    else:
        assert from_json(Judgement, stored) == judgement


def test_a_settled_journal_keeps_its_locks_so_that_readers_leave_its_log_alone(tmp_path):
    """A reader in another process that finds no locks takes itself for the last user and removes the log."""
    path = tmp_path / "journal.sqlite"
    count = (
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM records').fetchone())"
    )
    with closing(Journal(path)) as journal:
        for row in range(1, 5):
            journal.add_all("revisions", [chain(row)])
            journal.settle()
            assert int(subprocess.check_output([sys.executable, "-c", count, str(path)])) == row
    with closing(Journal(path)) as journal:
        assert journal.count("revisions") == 4


def test_settling_makes_a_commit_also_while_rows_are_read(journal):
    """SQLite syncs its log with a commit, under ``synchronous=FULL``."""
    journal.add_all("revisions", [chain(1), chain(2)])
    log = journal.path.with_name("journal.sqlite-wal")
    reading, before = journal.records(RevisionChain, "revisions"), log.stat().st_size
    assert next(reading).source_row == 1
    journal.settle()
    assert log.stat().st_size > before
    assert next(reading).source_row == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"\xff", b'{"id": "f:2"}', CHAIN_WITH_NULL])
def test_one_record_that_cannot_be_read_is_named_and_set_aside(tmp_path, caplog, damage):
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path)) as journal:
        journal.add_all("revisions", [chain(1), chain(2), chain(3)])
        journal._db.execute("UPDATE records SET record = ? WHERE id = 'f:2'", (damage,))
    with closing(Journal(path, read_only=True)) as reader:
        assert [r.source_row for r in reader.records(RevisionChain, "revisions")] == [1, 3]
        assert reader.count("revisions") == 3 and "row 2 of f: its record cannot be read" in caplog.text
    with closing(Journal(path)) as journal:
        assert [r.source_row for r in journal.records(RevisionChain, "revisions")] == [1, 3]
        (entry,) = journal.quarantine_entries()
        assert (entry.id, entry.fault, journal.count("revisions")) == ("f:2", "outside", 2)
        assert entry.cause.startswith("its record cannot be read")
