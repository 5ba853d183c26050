"""The end of an actor's log, for error messages about its death."""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path

from ray.exceptions import RayError

from actors.cluster import remote
from actors.cluster.waiting import within
from actors.cluster.whereabouts import Whereabouts
from rlaif.errors import WaitTimeoutError

LOG_LINES = 20  #: of an actor's log in an error message
LOG_TIMEOUT_S = 20.0


def read_tail(path: str) -> str:
    """The last lines of a log; empty when it cannot be read."""
    with contextlib.suppress(OSError), Path(path).open(encoding="utf-8", errors="replace") as log:
        return "".join(deque(log, maxlen=LOG_LINES)).strip()
    return ""


async def log_tail(where: Whereabouts) -> str:
    """The tail of an actor's log, read on its node, to append to an error message; empty when it cannot be read."""
    if where.node_id == remote.this_node():
        tail = read_tail(where.log_path)
    else:
        reading = remote.run_on(where.node_id, read_tail, where.log_path)
        try:
            tail = await within(LOG_TIMEOUT_S, reading, f"the log of {where}")
        except (RayError, WaitTimeoutError):
            tail = ""
    return f"\n--- end of {where.log_path} on {where.host} ---\n{tail}" if tail else ""
