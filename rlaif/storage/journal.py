"""The journal: every finished row of a run in one SQLite file, written only by the driver.

A row is committed as soon as it comes back, so a killed driver loses at most what was in flight. Rows have a *kind*
(revisions, comparisons, rollouts...), and kinds that come in batches a *batch*, so that everything after a checkpoint
can be forgotten. The key is (kind, batch, id): nothing can be recorded twice. Records are read back in the order of
their source rows, whatever order they finished in; memory does not grow with their number.

Tables of format 1, where kind and batch were one text in the column ``stage`` (``rollouts/00000012``), are rewritten
when they are opened, all or nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.errors import RunDirError, StorageError
from rlaif.records import NO_BATCH, Provenance, Quarantined
from rlaif.storage.files import replacing
from rlaif.storage.record_schema import arrow_schema, from_json, to_json, to_row

_R = TypeVar("_R")
_T = TypeVar("_T")
_P = ParamSpec("_P")
_RecordT = TypeVar("_RecordT", bound=Provenance)

JOURNAL_FORMAT = 2  #: SQLite's ``user_version``; format 1 has 0 there
EXPORT_ROWS = 2_000  #: rows held in memory while exporting

TABLES = (
    """CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, batch INTEGER NOT NULL, id TEXT NOT NULL, source_file TEXT NOT NULL,
    source_row INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (kind, batch, id)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS quarantine (
    kind TEXT NOT NULL, batch INTEGER NOT NULL, id TEXT NOT NULL, source_file TEXT NOT NULL,
    source_row INTEGER NOT NULL, cause TEXT NOT NULL, PRIMARY KEY (kind, batch, id)) WITHOUT ROWID""",
)
_BATCHED = "stage GLOB '*/[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]'"
_FROM_FORMAT_1 = (
    f"iif({_BATCHED}, substr(stage, 1, length(stage) - 9), stage), "
    f"iif({_BATCHED}, CAST(substr(stage, -8) AS INTEGER), {NO_BATCH}), id, source_file, source_row"
)


class HasId(Protocol):
    @property
    def id(self) -> str: ...


_RowT = TypeVar("_RowT", bound=HasId)


def _storage(method: Callable[Concatenate[Journal, _P], _T]) -> Callable[Concatenate[Journal, _P], _T]:
    @wraps(method)
    def guarded(self: Journal, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(self, *args, **kwargs)
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                f"{self.path}: cannot write: {error}; free the disk or its permissions and run the same command again"
            ) from error

    return guarded


class Journal:
    """Raises RunDirError for a journal of a later format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    @_storage
    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        # NORMAL survives a killed process (what happens) and at worst forgets the last rows of a lost machine.
        self._db.execute("PRAGMA synchronous=NORMAL")
        written = self._number("PRAGMA user_version")
        if written > JOURNAL_FORMAT:
            self._db.close()
            raise RunDirError(
                f"{self.path}: format {written}: this version reads formats 1 to {JOURNAL_FORMAT}; "
                "use the version of rlaif that made the run, or choose another run_dir="
            )
        if written < JOURNAL_FORMAT:
            self._upgrade()

    def _upgrade(self) -> None:
        """Create the tables, and move into them what is there in tables of format 1."""
        with self._transaction():
            old = self._number("SELECT count(*) FROM pragma_table_info('records') WHERE name = 'stage'") > 0
            for table in ("records", "quarantine") if old else ():
                self._db.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
            for statement in TABLES:
                self._db.execute(statement)
            for table, content in (("records", "record"), ("quarantine", "cause")) if old else ():
                self._db.execute(f"INSERT INTO {table} SELECT {_FROM_FORMAT_1}, {content} FROM {table}_1")
                self._db.execute(f"DROP TABLE {table}_1")
            self._db.execute(f"PRAGMA user_version = {JOURNAL_FORMAT}")

    @_storage
    def add_all(self, kind: str, records: Iterable[Provenance], batch: int = NO_BATCH) -> None:
        """Record rows that came back together, all or none: one commit costs as much as one row.

        A second record with the same kind, batch and id is a programming error.
        """
        rows = [(kind, batch, r.id, r.source_file, r.source_row, to_json(r)) for r in records]
        with self._transaction():
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)

    @_storage
    def quarantine(self, row: Quarantined) -> None:
        """Set a row aside with its cause; reading a source again finds the same bad row, which is no error."""
        self._db.execute(
            "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)",
            (row.kind, row.batch, row.id, row.file, row.row, row.cause),
        )

    def pending(self, kind: str, rows: Iterable[_RowT], batch: int = NO_BATCH) -> Iterator[_RowT]:
        """Those of ``rows`` that have been neither recorded nor quarantined; lazy."""
        query = (
            "SELECT 1 FROM records WHERE kind = ?1 AND batch = ?2 AND id = ?3 "
            "UNION ALL SELECT 1 FROM quarantine WHERE kind = ?1 AND batch = ?2 AND id = ?3"
        )
        return (row for row in rows if self._db.execute(query, (kind, batch, row.id)).fetchone() is None)

    def count(self, kind: str) -> int:
        """Records of ``kind``, of all its batches."""
        return self._number("SELECT count(*) FROM records WHERE kind = ?", kind)

    def num_quarantined(self, kind: str) -> int:
        """Quarantined rows of ``kind``, of all its batches."""
        return self._number("SELECT count(*) FROM quarantine WHERE kind = ?", kind)

    def records(self, record_type: type[_R], kind: str, batch: int | None = None) -> Iterator[_R]:
        """Records of ``kind`` (of one batch, or of all) in the order of their source rows."""
        where, values = ("kind = ?", (kind,)) if batch is None else ("kind = ? AND batch = ?", (kind, batch))
        cursor = self._db.execute(
            f"SELECT record FROM records WHERE {where} ORDER BY source_file, source_row, id", values
        )
        return (from_json(record_type, data) for (data,) in cursor)

    def quarantine_entries(self) -> Iterator[Quarantined]:
        cursor = self._db.execute(
            "SELECT kind, batch, id, source_file, source_row, cause FROM quarantine ORDER BY 1, 2, 4, 5"
        )
        return (Quarantined(kind=k, batch=b, id=i, file=f, row=r, cause=c) for k, b, i, f, r, c in cursor)

    @_storage
    def forget(self, kind: str, ids: Iterable[str]) -> None:
        """Drop records of a kind without batches, to be made again; all or none."""
        rows = ((kind, NO_BATCH, id) for id in ids)
        with self._transaction():
            self._db.executemany("DELETE FROM records WHERE kind = ? AND batch = ? AND id = ?", rows)

    @_storage
    def forget_from(self, kind: str, batch: int) -> None:
        """Drop what was recorded or quarantined in the batches of ``kind`` from ``batch`` on; all or none."""
        with self._transaction():
            for table in ("records", "quarantine"):
                self._db.execute(f"DELETE FROM {table} WHERE kind = ? AND batch >= ?", (kind, batch))

    @_storage
    def export(self, record_type: type[_RecordT], kind: str, path: Path) -> int:
        """Write the records of ``kind`` to one parquet file, atomically; returns their number."""
        schema, num_rows = arrow_schema(record_type), 0
        with replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
            for records in _chunks(self.records(record_type, kind), EXPORT_ROWS):
                writer.write_table(pa.Table.from_pylist([dict(to_row(r)) for r in records], schema=schema))
                num_rows += len(records)
        return num_rows

    def close(self) -> None:
        self._db.close()

    def _number(self, query: str, *values: str) -> int:
        return int(self._db.execute(query, values).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # else SQLite has rolled back by itself, as it does when the disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _chunks(items: Iterable[_T], size: int) -> Iterator[Sequence[_T]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
