"""The journal: every finished row of a run in one SQLite file, written by the driver alone.

A row is committed as soon as it comes back, so a killed driver loses at most what was in flight. The key is
(stage, id), so nothing can be recorded twice. Records of a stage are read back in the order of their source rows,
whatever order they finished in; memory does not grow with their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.errors import StorageError
from rlaif.records import Quarantined
from rlaif.storage.record_schema import arrow_schema, from_json, to_json, to_row

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

EXPORT_ROWS = 2_000  #: rows held in memory while exporting

TABLES = """
CREATE TABLE IF NOT EXISTS records (
    stage TEXT NOT NULL, id TEXT NOT NULL, source_file TEXT NOT NULL, source_row INTEGER NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (stage, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
    stage TEXT NOT NULL, id TEXT NOT NULL, source_file TEXT NOT NULL, source_row INTEGER NOT NULL,
    cause TEXT NOT NULL, PRIMARY KEY (stage, id)) WITHOUT ROWID;
"""


class HasId(Protocol):
    @property
    def id(self) -> str: ...


RowT = TypeVar("RowT", bound=HasId)


def _storage(method: F) -> F:
    @wraps(method)
    def guarded(self: Journal, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (sqlite3.OperationalError, OSError) as error:
            raise StorageError(
                f"{self.path}: cannot write: {error}; free the disk or its permissions and run the same command again"
            ) from error

    return guarded  # type: ignore[return-value]


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    @_storage
    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        # NORMAL survives a killed process (what happens) and at worst forgets the last rows of a lost machine.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(TABLES)

    @_storage
    def add(self, stage: str, record: Any) -> None:
        """Record one finished row; a second record with its stage and id is a programming error."""
        self._db.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
            (stage, record.id, record.source_file, record.source_row, to_json(record)),
        )

    @_storage
    def add_all(self, stage: str, records: Iterable[Any]) -> None:
        """Record rows that came back together, all or none: one commit costs as much as one row."""
        rows = [(stage, r.id, r.source_file, r.source_row, to_json(r)) for r in records]
        with self._transaction():
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)

    @_storage
    def quarantine(self, row: Quarantined) -> None:
        """Set a row aside with its cause; reading a source again finds the same bad row, which is no error."""
        self._db.execute(
            "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?)",
            (row.stage, row.id, row.file, row.row, row.cause),
        )

    def pending(self, stage: str, rows: Iterable[RowT]) -> Iterator[RowT]:
        """Those of ``rows`` that have neither been recorded nor quarantined in ``stage``; lazy."""
        query = (
            "SELECT 1 FROM records WHERE stage = ?1 AND id = ?2 "
            "UNION ALL SELECT 1 FROM quarantine WHERE stage = ?1 AND id = ?2"
        )
        return (row for row in rows if self._db.execute(query, (stage, row.id)).fetchone() is None)

    def count(self, stage: str) -> int:
        return self._db.execute("SELECT count(*) FROM records WHERE stage = ?", (stage,)).fetchone()[0]

    def num_quarantined(self, stage: str) -> int:
        """Of ``stage``, a GLOB pattern."""
        return self._db.execute("SELECT count(*) FROM quarantine WHERE stage GLOB ?", (stage,)).fetchone()[0]

    def records(self, record_type: type[R], stage: str) -> Iterator[R]:
        """Records of ``stage`` (a GLOB pattern) in the order of their source rows."""
        cursor = self._db.execute(
            "SELECT record FROM records WHERE stage GLOB ? ORDER BY source_file, source_row, id", (stage,)
        )
        return (from_json(record_type, data) for (data,) in cursor)

    def quarantined(self) -> Iterator[Quarantined]:
        cursor = self._db.execute("SELECT id, source_file, source_row, stage, cause FROM quarantine ORDER BY 4, 2, 3")
        return (Quarantined(id=i, file=f, row=r, stage=s, cause=c) for i, f, r, s, c in cursor)

    @_storage
    def forget(self, stage: str, ids: Iterable[str]) -> None:
        """Drop records, to be made again; all or none."""
        with self._transaction():
            self._db.executemany("DELETE FROM records WHERE stage = ? AND id = ?", ((stage, id) for id in ids))

    @_storage
    def forget_from(self, stage: str) -> None:
        """Drop what was recorded or quarantined in the stages from ``stage`` on that share its name up to the last
        slash (batches after a checkpoint); all or none."""
        with self._transaction():
            for table in ("records", "quarantine"):
                siblings = stage.rsplit("/", 1)[0] + "/*"
                self._db.execute(f"DELETE FROM {table} WHERE stage >= ? AND stage GLOB ?", (stage, siblings))

    @_storage
    def export(self, record_type: type, stage: str, path: Path) -> int:
        """Write the records of ``stage`` to one parquet file, atomically; returns their number."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        schema, num_rows = arrow_schema(record_type), 0
        with pq.ParquetWriter(unfinished, schema) as writer:
            records: Iterator[Any] = self.records(record_type, stage)
            for rows in _chunks(records, EXPORT_ROWS):
                writer.write_table(pa.Table.from_pylist([dict(to_row(r)) for r in rows], schema=schema))
                num_rows += len(rows)
        unfinished.replace(path)
        return num_rows

    def close(self) -> None:
        self._db.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._db.execute("ROLLBACK" if error else "COMMIT")


def _chunks(items: Iterable[R], size: int) -> Iterator[list[R]]:
    chunk: list[R] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
