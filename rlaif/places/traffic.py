"""How much this process has read and written: whether what takes long still gets on."""

from __future__ import annotations

import resource
import time
from pathlib import Path

MIN_MOVED = 1 << 20  #: bytes that tell a process that gets on from one that waits: Python, Ray and their logs move less
READ_AHEAD = 128 << 10  #: bytes that Linux reads by default when a page of a mapped file is not in memory


class Traffic:
    """Of a process that moves bytes, as it is looked at now and then."""

    def __init__(self, moved: int) -> None:
        self._moved, self._since = moved, time.monotonic()

    def silence(self, moved: int) -> float:
        """Seconds since it was first seen to have moved about as much as the ``moved`` bytes that it has now."""
        if moved - self._moved >= MIN_MOVED:
            self._moved, self._since = moved, time.monotonic()
        return time.monotonic() - self._since


def moved_bytes() -> int:
    """Bytes that this process and all of its threads have read from files and written to them so far. It grows with
    every such byte, and may count one twice.

    What goes through sockets does not count. Mapped files do, by their page faults: safetensors reads weights so. Where
    the system keeps no account (it is Linux's), only these are counted.
    """
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    try:
        account = Path("/proc/self/io").read_text()
    except OSError:
        return faults * READ_AHEAD
    counts = dict(line.split(": ") for line in account.splitlines())
    return faults * READ_AHEAD + sum(int(counts[name]) for name in ("rchar", "wchar", "read_bytes"))
