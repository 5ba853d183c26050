"""``driver.json``: how other commands find a run in progress."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from actors.cluster.loopback import is_loopback
from rlaif.errors import UserError
from rlaif.storage.damage import check_places, reading
from rlaif.storage.files import write_atomically
from rlaif.storage.ownership import check_own_run

REACH_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """A driver and its cluster.

    Attributes:
        address: of the cluster's head, host:port.
        namespace: Ray's, of this run.
        auth_mode: RAY_AUTH_MODE that clients of this cluster need.
        started: Unix time.
    """

    pid: Annotated[int, Field(gt=0, lt=2**31)]  #: what the system takes for one process
    host: str
    address: str
    namespace: str
    auth_mode: str | None
    started: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    def prepare_to_ask(self) -> None:
        """Call before Ray is imported, which then reads the mode: the Ray of a single run asks for the user's token."""
        if self.auth_mode is not None:
            os.environ.setdefault("RAY_AUTH_MODE", self.auth_mode)


_ANNOUNCEMENT = TypeAdapter(Announcement)


@contextmanager
def announce(run_dir: Path, *, address: str, namespace: str) -> Iterator[None]:
    """Keep ``driver.json``, which only this user can read, for the length of a ``with`` block. A killed driver leaves
    it there."""
    announcement = Announcement(
        pid=os.getpid(),
        host=socket.gethostname(),
        address=address,
        namespace=namespace,
        auth_mode=os.environ.get("RAY_AUTH_MODE"),
        started=time.time(),
    )
    path = run_dir / "driver.json"
    write_atomically(path, json.dumps(asdict(announcement)) + "\n", private=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find_run(run_dir: Path) -> Announcement:
    """The announcement of a run that is in progress, as far as this host can tell. Raises UserError when it is not,
    and RunDirError when another user announced it: what is there receives this user's token."""
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir}: not a run directory (no config.yaml)")
    check_places(run_dir)
    path = run_dir / "driver.json"
    if not path.is_file():
        raise UserError(f"{run_dir}: not running on a cluster now (no driver.json)")
    check_own_run(run_dir)
    with reading(path):
        run = _ANNOUNCEMENT.validate_json(path.read_bytes())
    on_this_host = run.host == socket.gethostname()
    if on_this_host and not _lives(run.pid):
        raise run_ended_error(run_dir, run)
    if not on_this_host and is_loopback(run.address):
        raise UserError(f"{run_dir}: runs on {run.host}, and its Ray listens on that host only; ask there")
    if not _listens(run.address):
        raise UserError(f"{run_dir}: its Ray cluster at {run.address} cannot be reached from here")
    return run


def run_ended_error(run_dir: Path, run: Announcement) -> UserError:
    return UserError(
        f"{run_dir}: not running: its driver (pid {run.pid} on {run.host}) has ended; "
        "give its command again to resume it"
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True
