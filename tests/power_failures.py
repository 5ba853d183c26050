"""What a machine that loses its power leaves on its disk, at every moment of a run that is recorded here.

``Recorder`` watches what a run does to its directory: files written, settled (fsync), renamed, removed, and rows
committed. Before each of these it notes what the directory holds, and what of it the disk is known to hold. ``remains``
makes of such a moment the directories that could be found afterwards.

A disk may keep names and lose contents, or lose both: it owes nothing that was not settled. SQLite's database file is
taken as settled, because SQLite settles it itself; its write-ahead log is not. Its shared-memory file is never kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlaif.storage.journal import Journal
from rlaif.storage.metrics import EventLog

Tree = Mapping[str, bytes | None]  #: relative path -> content; None for a directory


_NO_FILE = 0  #: instead of the inode of a directory, which a file may get when the directory is gone


@dataclass(frozen=True)
class Moment:
    """A directory at one moment, and what of it the disk holds.

    ``now``: the directory. ``names``: the settled entries of each settled directory. ``settled``: what the disk holds
    of a file that is there now. ``lost_names``: the same under names that are gone, or lead to another file now.
    """

    what: str
    now: Tree
    names: Mapping[str, frozenset[str]]
    settled: Mapping[str, bytes]
    lost_names: Mapping[str, bytes]


@dataclass
class Recorder:
    """Moments of a run in ``root``. Content is held once however often it occurs."""

    root: Path
    graveyard: Path  #: keeps settled files alive, so that no other file gets their inode
    moments: list[Moment] = field(default_factory=list)
    _contents: dict[int, bytes] = field(default_factory=dict)  #: inode -> what the disk holds
    _names: dict[str, dict[str, int]] = field(default_factory=dict)  #: settled directory -> name -> inode
    _read: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    _pool: dict[bytes, bytes] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)  #: large files are settled in threads

    # ------------------------------------------------------------------------------------------------ watching
    @contextmanager
    def watching(self) -> Iterator[None]:
        self.graveyard.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", self._fsync(os.fsync))
            for name in ("replace", "unlink", "remove", "rmdir"):
                patch.setattr(os, name, self._noted(name, getattr(os, name)))
            patch.setattr(shutil, "rmtree", self._noted("rmtree", shutil.rmtree))
            patch.setattr(Journal, "_transaction", self._committed(Journal._transaction))
            patch.setattr(Journal, "quarantine", self._noted("commit", Journal.quarantine))
            patch.setattr(Journal, "settle", self._journal_settled(Journal.settle))
            patch.setattr(EventLog, "_append", self._noted("append", EventLog._append))
            yield
        self._note("end")

    def _noted(self, what: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self._note(f"before {what}")
                return operation(*args, **kwargs)

        return noted

    def _committed(self, transaction: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def committed(journal: Journal) -> Iterator[None]:
            with transaction(journal):
                yield
            with self._lock:
                self._note("after commit")

        return committed

    def _journal_settled(self, settle: Callable[[Journal], None]) -> Callable[[Journal], None]:
        """SQLite settles its log by itself, in a way that Python does not see."""

        def settled(journal: Journal) -> None:
            with self._lock:
                self._note("before the journal is settled")
                settle(journal)
                log = journal.path.with_name(f"{journal.path.name}-wal")
                if log.exists():
                    self._settle(log, log.stat())

        return settled

    def _fsync(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def settled(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").resolve()
            with self._lock:
                self._note(f"before fsync {path.name}")
                fsync(descriptor)
                if path.is_relative_to(self.root.parent):
                    self._settle(path, os.fstat(descriptor))

        return settled

    def _settle(self, path: Path, facts: os.stat_result) -> None:
        if stat.S_ISDIR(facts.st_mode):
            inodes = {entry.name: _NO_FILE if entry.is_dir() else entry.stat().st_ino for entry in path.iterdir()}
            self._names[str(path)] = inodes
            return
        if facts.st_ino not in self._contents:
            os.link(path, self.graveyard / str(len(self._contents)))
        self._contents[facts.st_ino] = self._content(path)

    def _content(self, path: Path) -> bytes:
        facts = path.stat()
        key = facts.st_ino, facts.st_mtime_ns, facts.st_size
        if key not in self._read or path.suffix == ".sqlite-wal":  # SQLite writes through a map, too
            content = path.read_bytes()
            self._read[key] = self._pool.setdefault(content, content)
        return self._read[key]

    def _note(self, what: str) -> None:
        if not self.root.is_dir():
            return
        now: dict[str, bytes | None] = {}
        settled: dict[str, bytes] = {}
        inodes = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_dir():
                now[name] = None
            elif not name.endswith("-shm"):
                now[name], inodes[name] = self._content(path), path.stat().st_ino
        for name, inode in inodes.items():
            if name.endswith(".sqlite"):
                settled[name] = now[name]
            elif inode in self._contents:
                settled[name] = self._contents[inode]
        self.moments.append(
            Moment(what=what, now=now, settled=settled, names=self._settled_names(), lost_names=self._lost(inodes))
        )

    def _settled_names(self) -> dict[str, frozenset[str]]:
        return {
            str(Path(directory).relative_to(self.root)): frozenset(names)
            for directory, names in self._names.items()
            if Path(directory).is_relative_to(self.root)
        }

    def _lost(self, inodes: Mapping[str, int]) -> dict[str, bytes]:
        """What is found under settled names of files that have been removed or replaced since."""
        found = {}
        for directory, names in self._names.items():
            if Path(directory).is_relative_to(self.root):
                for name, inode in names.items():
                    path = str((Path(directory) / name).relative_to(self.root))
                    if inodes.get(path) != inode and inode in self._contents:
                        found[path] = self._contents[inode]
        return found


# ---------------------------------------------------------------------------------------------------------- remains
def remains(moment: Moment) -> dict[str, Tree]:
    """What may be found after a loss at ``moment``, by kind of loss."""
    return {
        "process killed": moment.now,
        "what was not settled is empty": _with_contents(moment, lambda settled, now: settled or b""),
        "what was not settled is torn": _with_contents(moment, _torn),
        "what was not settled is gone": _only_settled(moment),
    }


def _torn(settled: bytes | None, now: bytes) -> bytes:
    """Half of what was written since."""
    begun = settled if settled is not None and now.startswith(settled) else b""
    return now[: len(begun) + (len(now) - len(begun)) // 2]


def _with_contents(moment: Moment, found: Callable[[bytes | None, bytes], bytes]) -> Tree:
    return {
        name: content
        if content is None or moment.settled.get(name) == content
        else found(moment.settled.get(name), content)
        for name, content in moment.now.items()
    }


def _only_settled(moment: Moment) -> Tree:
    """Settled names alone, each with its settled content; a removal that was not settled has not happened."""
    found: dict[str, bytes | None] = {}
    for name, content in sorted({**moment.now, **moment.lost_names}.items()):
        parent, last = os.path.split(name)
        parent = parent or "."
        if last not in moment.names.get(parent, frozenset()) or (parent != "." and parent not in found):
            continue
        if name in moment.lost_names:
            found[name] = moment.lost_names[name]
        else:
            found[name] = None if content is None else moment.settled.get(name, b"")
    return found


def write(tree: Tree, root: Path) -> Path:
    root.mkdir(parents=True)
    for name, content in tree.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def digest(tree: Tree) -> str:
    """The same for trees that hold the same, logs and their times aside."""
    sha = hashlib.sha256()
    for name, content in sorted(tree.items()):
        sha.update(repr((name, content is None)).encode() + hashlib.sha256(content or b"").digest())
    return sha.hexdigest()


def distinct(moments: list[Moment]) -> Iterator[tuple[str, Tree]]:
    """Everything that may be found after a loss at any of ``moments``, each once; with what happened."""
    seen = set()
    for number, moment in enumerate(moments):
        for loss, tree in remains(moment).items():
            if (key := digest(tree)) not in seen:
                seen.add(key)
                yield f"point {number} ({moment.what}), {loss}", tree
