"""The journal: every finished row of a run in one SQLite file, written only by the driver.

A row is committed as soon as it comes back, so a killed driver loses at most what was in flight. Rows have a *kind*
(revisions, comparisons, rollouts...), and kinds that come in batches a *batch*, so that everything after a checkpoint
can be forgotten. The key is (kind, batch, id): nothing can be recorded twice. With a record goes the *fingerprint* of
all that it was made of: its row, task and model. A record whose fingerprint is another now is outdated. Records are
read back in the order of their source rows, whatever order they finished in; memory does not grow with their number.

Formats 1 and 2 knew rows by their place in a file. Such runs are not gone on with; their tables can still be read.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.errors import DataError, RunDirError, StorageError
from rlaif.places.writing import replacing, settle
from rlaif.records import NO_BATCH, Provenance, Quarantined
from rlaif.storage.changes import (
    RowToRecord,
    SourceChange,
    Survey,
    count_present,
    drop_outdated,
    find_source,
    keep_source,
    note_present,
)
from rlaif.storage.damage import damaged
from rlaif.storage.files import says_full
from rlaif.storage.journal_file import open_for_reading, open_for_writing
from rlaif.storage.record_schema import arrow_schema, from_json, to_json, to_row

_logger = logging.getLogger(__name__)
_R = TypeVar("_R")
_T = TypeVar("_T")
_P = ParamSpec("_P")
_RecordT = TypeVar("_RecordT", bound=Provenance)

JOURNAL_FORMAT = 3  #: SQLite's ``user_version``; format 1 has 0 there
EXPORT_ROWS = 2_000  #: rows held in memory while exporting

_KEY = "kind TEXT NOT NULL, batch INTEGER NOT NULL, id TEXT NOT NULL"
_PLACE = "source_file TEXT NOT NULL, source_row INTEGER NOT NULL"
_RECORD = f"{_KEY}, {_PLACE}, record BLOB NOT NULL, fingerprint TEXT NOT NULL"
_FAILURE = f"{_KEY}, {_PLACE}, cause TEXT NOT NULL, fault TEXT NOT NULL, fingerprint TEXT NOT NULL"
TABLES = (
    f"CREATE TABLE records ({_RECORD}, PRIMARY KEY (kind, batch, id)) WITHOUT ROWID",
    f"CREATE TABLE retired ({_RECORD}, PRIMARY KEY (kind, batch, id, fingerprint)) WITHOUT ROWID",
    f"CREATE TABLE quarantine ({_FAILURE}, PRIMARY KEY (kind, batch, id)) WITHOUT ROWID",
    "CREATE TABLE source_rows (source TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (source, id)) WITHOUT ROWID",
)
_QUARANTINE = "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_PLACE_OF_RECORD = "kind, batch, id, source_file, source_row"
_QUARANTINED = "kind, batch, id, source_file, source_row, cause, fault"

_RowT = TypeVar("_RowT", bound=RowToRecord)


def _storage(method: Callable[Concatenate[Journal, _P], _T]) -> Callable[Concatenate[Journal, _P], _T]:
    @wraps(method)
    def guarded(self: Journal, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with _naming(self.path):
            return method(self, *args, **kwargs)

    return guarded


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Raises StorageError where the disk fails SQLite, DamagedError where the file does."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if says_full(str(error)):
            raise StorageError(
                f"{path}: {error}; free some of the disk, or of the temporary directory (SQLITE_TMPDIR names another), "
                "and run the same command again"
            ) from error
        if type(error) is sqlite3.DatabaseError or str(error).startswith("no such"):
            raise damaged(path, f"is damaged: {error}") from error
        if isinstance(error, sqlite3.OperationalError):
            raise _unusable(path, error) from error
        raise
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> StorageError:
    if str(error) == "database is locked":
        return StorageError(f"{path}: another process keeps it locked; end that process and run the same command again")
    if str(error) == "locking protocol":
        way = (
            "the journal needs storage that locks files (NFS 4, or Lustre mounted with flock); choose another run_dir="
        )
        return StorageError(f"{path}: {error}; {way}")
    message = f"{path}: cannot write: {error}; free the disk or its permissions and run the same command again"
    return StorageError(message)


class Journal:
    """Raises RunDirError for a journal of another format, DamagedError for a file that is none, StorageError where the
    disk fails.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._is_read_only = read_only
        self._open(read_only)
        written = self._number("PRAGMA user_version")
        if written != JOURNAL_FORMAT:
            self._db.close()
            raise RunDirError(
                f"{self.path}: format {max(1, written)}: this version goes on with format {JOURNAL_FORMAT}; "
                "use the version of rlaif that made the run, or choose another run_dir="
            )

    @_storage
    def _open(self, read_only: bool) -> None:
        if read_only:
            self._db = open_for_reading(self.path)
            return
        # Commits survive a killed process. A lost machine may forget those after the last ``settle``.
        self._db, self._synchronous = open_for_writing(self.path)
        if not self._number("SELECT count(*) FROM sqlite_master"):
            with self._transaction():
                for statement in TABLES:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {JOURNAL_FORMAT}")

    @_storage
    def add_all(
        self,
        kind: str,
        records: Iterable[Provenance],
        batch: int = NO_BATCH,
        fingerprints: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Record rows that came back together, all or none: one commit costs as much as one row.

        ``fingerprints``, by id, are of what the records were made of; without one a record is never outdated. A record
        that could not be read back (see ``to_json``) is quarantined instead. A second record with the same kind, batch
        and id is a programming error.
        """
        rows: list[tuple[object, ...]] = []
        refused: list[tuple[object, ...]] = []
        for r in records:
            place, made_of = (kind, batch, r.id, r.source_file, r.source_row), fingerprints.get(r.id, "")
            try:
                rows.append((*place, to_json(r), made_of))
            except DataError as error:
                refused.append((*place, str(error), "outside", made_of))
        with self._transaction():
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany(_QUARANTINE, refused)

    @_storage
    def quarantine(self, row: Quarantined, fingerprint: str = "") -> None:
        """Set a row aside with its cause; reading a source again finds the same bad row, which is no error."""
        entry = (row.kind, row.batch, row.id, row.file, row.row, row.cause, row.fault, fingerprint)
        self._db.execute(_QUARANTINE, entry)

    def pending(self, kind: str, rows: Iterable[_RowT], batch: int = NO_BATCH) -> Iterator[_RowT]:
        """Those of ``rows`` that have been neither recorded nor quarantined; lazy."""
        query = (
            "SELECT 1 FROM records WHERE kind = ?1 AND batch = ?2 AND id = ?3 "
            "UNION ALL SELECT 1 FROM quarantine WHERE kind = ?1 AND batch = ?2 AND id = ?3"
        )
        return (row for row in rows if not self._read(query, kind, batch, row.id))

    def count(self, kind: str) -> int:
        """Records of ``kind``, of all its batches."""
        return self._number("SELECT count(*) FROM records WHERE kind = ?", kind)

    def num_quarantined(self, kind: str, batch: int | None = None) -> int:
        """Quarantined rows of ``kind`` (of one batch, or of all)."""
        query = "SELECT count(*) FROM quarantine WHERE kind = ?1 AND batch = ifnull(?2, batch)"
        return self._number(query, kind, batch)

    def num_truncated(self, kind: str) -> int:
        """Records of ``kind`` whose prompt was shortened to fit its model."""
        text = "CAST(record AS TEXT)"
        is_truncated = f"json_valid({text}) AND json_extract({text}, '$.truncated')"
        return self._number(f"SELECT count(*) FROM records WHERE kind = ? AND {is_truncated}", kind)

    def has_retries(self, kind: str) -> bool:
        """Whether any row of a kind without batches failed for a cause outside itself."""
        query = f"SELECT EXISTS (SELECT 1 FROM quarantine WHERE kind = ? AND batch = {NO_BATCH} AND fault = 'outside')"
        return self._number(query, kind) == 1

    def main_cause(self, kind: str) -> tuple[str, int]:
        """The most frequent cause for which rows of ``kind`` are quarantined, and how many are. Causes that differ in
        numbers only are the same."""
        query = "SELECT cause, count(*) FROM quarantine WHERE kind = ? GROUP BY cause ORDER BY 2 DESC, 1"
        totals, first = Counter[str](), dict[str, str]()
        for cause, number in self._read(query, kind):
            key = re.sub(r"\d+", "", cause)
            totals[key] += number
            first.setdefault(key, cause)
        key, total = totals.most_common(1)[0] if totals else ("", 0)
        return first.get(key, "unknown"), total

    def records(self, record_type: type[_R], kind: str, batch: int | None = None) -> Iterator[_R]:
        """Records of ``kind`` (of one batch, or of all) in the order of their source rows.

        One that cannot be read is named in a warning and quarantined, for a cause outside the row; if the journal is
        open for reading only, it is passed over.
        """
        where, values = ("kind = ?", (kind,)) if batch is None else ("kind = ? AND batch = ?", (kind, batch))
        order = "ORDER BY source_file, source_row, id"
        for *place, data in self._each(
            f"SELECT {_PLACE_OF_RECORD}, record FROM records WHERE {where} {order}", *values
        ):
            try:
                yield from_json(record_type, data)
            except DataError as error:
                self._set_aside(place, f"its record {error}")

    @_storage
    def _set_aside(self, place: Sequence[Any], cause: str) -> None:
        kind, batch, id, file, row = place
        _logger.warning("%s: %s, row %s of %s: %s", self.path, kind, row, file, cause)
        if self._is_read_only:
            return
        self._db.execute("DELETE FROM records WHERE kind = ? AND batch = ? AND id = ?", (kind, batch, id))
        self._db.execute(_QUARANTINE, (*place, cause, "outside", ""))

    def quarantine_entries(self) -> Iterator[Quarantined]:
        return (
            Quarantined(kind=kind, batch=batch, id=id, file=file, row=row, cause=cause, fault=fault)
            for kind, batch, id, file, row, cause, fault in self._each(
                f"SELECT {_QUARANTINED} FROM quarantine ORDER BY 1, 2, 4, 5"
            )
        )

    # ------------------------------------------------------------------------------------- rows that have changed
    @_storage
    def survey(self, kind: str, rows: Iterable[_RowT], fingerprint: Callable[[_RowT], str]) -> Survey:
        """What is stored of ``rows``, all that there are of a kind without batches. Changes nothing."""
        with self._transaction():
            note_present(self._db, rows, fingerprint)
        return count_present(self._db, kind)

    @_storage
    def drop_outdated(self, kind: str) -> None:
        """Drop what the last ``survey`` found outdated, gone, or to be tried again; note where rows have moved."""
        with self._transaction():
            drop_outdated(self._db, kind)

    @_storage
    def find_source(self, source: str, ids: Iterable[str]) -> SourceChange:
        """Compare the rows that ``source`` has now, by their ids, with those that ``keep_source`` kept."""
        with self._transaction():
            return find_source(self._db, source, ids)

    @_storage
    def keep_source(self, source: str) -> None:
        """Keep the rows that ``find_source`` found last as those that the run reads."""
        with self._transaction():
            keep_source(self._db, source)

    def knows_source(self, source: str) -> bool:
        return self.count_source(source) > 0

    def count_source(self, source: str) -> int:
        """Rows that ``keep_source`` kept."""
        return self._number("SELECT count(*) FROM source_rows WHERE source = ?", source)

    @_storage
    def forget_source(self, source: str) -> None:
        """Drop what ``keep_source`` kept."""
        self._db.execute("DELETE FROM source_rows WHERE source = ?", (source,))

    def is_empty(self) -> bool:
        """Whether nothing has been recorded or quarantined."""
        return all(self._number(f"SELECT EXISTS (SELECT 1 FROM {t})") == 0 for t in ("records", "quarantine"))

    @_storage
    def forget_quarantine(self, kind: str) -> None:
        """Drop what was quarantined of a kind, to be found again or not."""
        self._db.execute("DELETE FROM quarantine WHERE kind = ?", (kind,))

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

    @_storage
    def settle(self) -> None:
        """Returns once the disk holds all that has been committed, even if the machine is lost afterwards.

        A commit under ``synchronous=FULL`` settles the whole write-ahead log. Opening the files here to do so would be
        wrong: closing any descriptor of a file drops all locks that this process has on it (POSIX), and another
        process that reads the journal would then take the log for its own and remove it.
        """
        self._db.execute("PRAGMA synchronous=FULL")
        try:
            self._db.execute(f"PRAGMA user_version = {JOURNAL_FORMAT}")  # a commit that changes nothing
        finally:
            self._db.execute(f"PRAGMA synchronous={self._synchronous}")
        settle(self.path.parent)

    def close(self) -> None:
        self._db.close()

    def find_damage(self) -> str | None:
        """What SQLite finds wrong with the file as a whole, if anything. Reads all of it."""
        try:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            return str(error)
        return None if found == "ok" else str(found)

    @_storage
    def _read(self, query: str, *values: str | int | None) -> list[Any]:
        return self._db.execute(query, values).fetchall()

    def _each(self, query: str, *values: str | int | None) -> Iterator[Any]:
        """Rows one by one."""
        with _naming(self.path):
            cursor = self._db.execute(query, values)
        while True:
            with _naming(self.path):
                row = cursor.fetchone()
            if row is None:
                return
            yield row

    def _number(self, query: str, *values: str | int | None) -> int:
        ((number,),) = self._read(query, *values)
        return int(number)

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
