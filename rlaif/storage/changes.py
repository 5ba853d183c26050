"""What has changed since rows were recorded, found inside the journal's database.

The rows that there are now are noted in temporary tables, beside which the stored ones are outdated, gone, or moved.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rlaif.records import NO_BATCH, Status


class RowToRecord(Protocol):
    """A row that a record is to be made of."""

    @property
    def id(self) -> str: ...

    @property
    def source_file(self) -> str: ...

    @property
    def source_row(self) -> int: ...


_RowT = TypeVar("_RowT", bound=RowToRecord)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is stored of ``num_rows`` rows.

    Records are ``kept`` or ``outdated``, or their rows are ``gone``; retired ones that fit again are ``restored``. Rows
    that failed for a cause outside themselves are ``retried``; others that failed stay ``quarantined``.
    """

    num_rows: int
    kept: int
    restored: int
    outdated: int
    gone: int
    retried: int
    quarantined: int

    @property
    def num_pending(self) -> int:
        return self.num_rows - self.kept - self.restored - self.quarantined


@dataclass(frozen=True, kw_only=True)
class SourceChange:
    """Rows of a source, how many of them are ``new`` or edited, and how many of before are ``gone``."""

    num_rows: int
    new: int
    gone: int

    def __str__(self) -> str:
        return f"{self.new} of {self.num_rows} rows are new or edited, {self.gone} are gone"


_OF_KIND = f"kind = ? AND batch = {NO_BATCH}"
_GONE = "id NOT IN (SELECT id FROM present)"
_TIMED_OUT = f"json_extract(CAST(record AS TEXT), '$.status') = '{Status.TIMEOUT}'"


def _outdated(table: str) -> str:
    """Whether a stored row was made of something else than what there is now."""
    made_of_other = f"p.id = {table}.id AND {table}.fingerprint NOT IN ('', p.fingerprint)"
    return f"EXISTS (SELECT 1 FROM present p WHERE {made_of_other})"


_RETRIED = {"quarantine": "fault = 'outside'", "records": _TIMED_OUT}
_FITS_AGAIN = "EXISTS (SELECT 1 FROM present p WHERE p.id = retired.id AND p.fingerprint = retired.fingerprint)"
_DROPPED = {table: f"({_GONE} OR {_outdated(table)} OR {retried})" for table, retried in _RETRIED.items()}


def note_present(db: sqlite3.Connection, rows: Iterable[_RowT], fingerprint: Callable[[_RowT], str]) -> None:
    """Note the rows that there are, with the fingerprint of all that the record of each is made of."""
    columns = "id TEXT PRIMARY KEY, fingerprint TEXT, file TEXT, row INTEGER"
    db.execute(f"CREATE TEMP TABLE IF NOT EXISTS present ({columns}) WITHOUT ROWID")
    db.execute("DELETE FROM present")  # not dropped: ``rows`` may be records that are being read
    present = ((row.id, fingerprint(row), row.source_file, row.source_row) for row in rows)
    db.executemany("INSERT INTO present VALUES (?, ?, ?, ?)", present)


def count_present(db: sqlite3.Connection, kind: str) -> Survey:
    """What is stored of the rows that were noted last."""

    def count(table: str, condition: str) -> int:
        query = f"SELECT count(*) FROM {table} WHERE {_OF_KIND} AND {condition}"
        return int(db.execute(query, (kind,)).fetchone()[0])

    return Survey(
        num_rows=int(db.execute("SELECT count(*) FROM present").fetchone()[0]),
        kept=count("records", f"NOT {_DROPPED['records']}"),
        restored=count("retired", _FITS_AGAIN),
        outdated=count("records", _outdated("records")),
        gone=count("records", _GONE),
        retried=sum(count(table, f"{retried} AND NOT {_GONE}") for table, retried in _RETRIED.items()),
        quarantined=count("quarantine", f"NOT {_DROPPED['quarantine']}"),
    )


def drop_outdated(db: sqlite3.Connection, kind: str) -> None:
    """Drop what is outdated, gone or to be tried again beside the rows that were noted last; note where rows moved.

    Records that are outdated or gone are retired: a file or a model that comes back brings them back.
    """
    retired = f"{_OF_KIND} AND ({_GONE} OR {_outdated('records')}) AND NOT {_TIMED_OUT}"
    db.execute(f"INSERT OR REPLACE INTO retired SELECT * FROM records WHERE {retired}", (kind,))
    for table, dropped in _DROPPED.items():
        db.execute(f"DELETE FROM {table} WHERE {_OF_KIND} AND {dropped}", (kind,))
    db.execute(f"INSERT OR IGNORE INTO records SELECT * FROM retired WHERE {_OF_KIND} AND {_FITS_AGAIN}", (kind,))
    db.execute(f"DELETE FROM retired WHERE {_OF_KIND} AND {_FITS_AGAIN}", (kind,))
    moved = db.execute(
        f"SELECT r.id, p.file, p.row, r.record FROM records r JOIN present p ON r.id = p.id WHERE {_OF_KIND} "
        "AND (r.source_file, r.source_row) IS NOT (p.file, p.row)",
        (kind,),
    )
    places = [(file, row, _moved(record, file, row), kind, id) for id, file, row, record in moved]
    db.executemany(
        f"UPDATE records SET source_file = ?, source_row = ?, record = ? WHERE {_OF_KIND} AND id = ?", places
    )


def _moved(record: bytes, file: str, row: int) -> bytes:
    content = {**json.loads(record), "source_file": file, "source_row": row}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def find_source(db: sqlite3.Connection, source: str, ids: Iterable[str]) -> SourceChange:
    """Find the rows that ``source`` has now; returns what has changed since ``keep_source``."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS found (id TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("DELETE FROM found")
    db.executemany("INSERT INTO found VALUES (?)", ((id,) for id in ids))

    def count(query: str, *values: str) -> int:
        return int(db.execute(f"SELECT count(*) FROM {query}", values).fetchone()[0])

    return SourceChange(
        num_rows=count("found"),
        new=count("found WHERE id NOT IN (SELECT id FROM source_rows WHERE source = ?)", source),
        gone=count("source_rows WHERE source = ? AND id NOT IN (SELECT id FROM found)", source),
    )


def keep_source(db: sqlite3.Connection, source: str) -> None:
    """From now on, changes are told from the rows that ``find_source`` found last."""
    db.execute("DELETE FROM source_rows WHERE source = ?", (source,))
    db.execute("INSERT INTO source_rows SELECT ?, id FROM found", (source,))
