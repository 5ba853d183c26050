"""Where a process of the cluster runs, for messages, logs and tests."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import ray


@dataclass(frozen=True, kw_only=True)
class Whereabouts:
    host: str
    node_id: str
    pid: int
    log_path: str  #: what the process and its libraries write to stderr

    def __str__(self) -> str:
        return f"{self.host}, pid {self.pid}"


def current_whereabouts() -> Whereabouts:
    """Of the actor that calls this."""
    return Whereabouts(
        host=socket.gethostname(),
        node_id=ray.get_runtime_context().get_node_id(),
        pid=os.getpid(),
        log_path=str(Path("/proc/self/fd/2").resolve()),
    )
