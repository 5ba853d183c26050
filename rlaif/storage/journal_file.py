"""How SQLite opens a journal: on a disk of this machine, on storage that several machines share, for reading only.

SQLite's write-ahead log needs memory that all readers and writers share, which they have on one machine only: on NFS
and the like, a reader on another host takes the log for its own, and may remove what was committed
(https://sqlite.org/wal.html, "Disadvantages"). There, and wherever SQLite cannot share memory, the journal has a
rollback journal, which needs nothing but locks. A reader of such a journal keeps the writer waiting, so it reads a
copy.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal

from rlaif.places.mounts import is_on_this_machine

LOCK_TIMEOUT_S = 120.0  #: writers wait for readers that copy, and readers for a transaction
Synchronous = Literal["NORMAL", "FULL"]


def open_database(path: Path, options: str = "") -> sqlite3.Connection:
    """``options``: of SQLite's URIs, such as ``mode=ro``."""
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_S)


def open_for_writing(path: Path) -> tuple[sqlite3.Connection, Synchronous]:
    """A connection, made if need be, and how commits are to be synchronised.

    After a power failure, a write-ahead log that was not synchronised has lost commits (``NORMAL``), but a rollback
    journal may have lost the file (``FULL``).
    """
    db = open_database(path)
    if is_on_this_machine(path.parent) and _takes_log(db):
        db.execute("PRAGMA synchronous=NORMAL")
        return db, "NORMAL"
    db.close()  # what has a log can only be opened without shared memory by one that locks out all others
    db = open_database(path)
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("PRAGMA journal_mode=TRUNCATE").fetchall()
    db.execute("PRAGMA locking_mode=NORMAL")
    db.execute("SELECT count(*) FROM sqlite_master").fetchall()  # lets go of the lock
    db.execute("PRAGMA synchronous=FULL")
    return db, "FULL"


def _takes_log(db: sqlite3.Connection) -> bool:
    try:
        return bool(db.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal")
    except sqlite3.OperationalError as error:
        if str(error).startswith("unable to open") and _holds_bytes(_file_of(db)):
            return False  # it has a log already, and the memory for it cannot be shared
        raise


def _file_of(db: sqlite3.Connection) -> Path:
    return Path(db.execute("PRAGMA database_list").fetchone()[2])


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Beside a driver that writes, or in a directory that nobody can write, where SQLite cannot share its log: a
    journal that was closed has none, and is read as a file that does not change."""
    db = open_database(path, "mode=ro")
    try:
        db.execute("PRAGMA user_version")
        has_log = db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    except sqlite3.OperationalError as error:
        db.close()
        return _without_shared_log(path, error)
    return db if has_log else _copied(db)


def _without_shared_log(path: Path, error: sqlite3.OperationalError) -> sqlite3.Connection:
    rollback, log = (path.with_name(f"{path.name}-{kind}") for kind in ("journal", "wal"))
    if _holds_bytes(rollback):  # a writer has died: what it had begun must be undone, which needs the right to write
        return _copied(open_database(path, "mode=rw"))
    if not path.is_file() or _holds_bytes(log):
        raise error
    return open_database(path, "mode=ro&immutable=1")


def _holds_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _copied(db: sqlite3.Connection) -> sqlite3.Connection:
    """``db`` as it is now, in a temporary file that SQLite removes."""
    copy = sqlite3.connect("", isolation_level=None)
    try:
        db.backup(copy)
    except BaseException:
        copy.close()
        raise
    finally:
        db.close()
    return copy
