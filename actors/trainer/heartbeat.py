"""The signs of life of one rank: it beats when a pass is over, and while it reads or writes files.

A thread that beats whatever happens would prove nothing, so this one looks at what the process has read and written:
loading a model from slow storage, or saving one, is one long call that nobody else can look into.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rlaif.engines.turns import waits_for_turn
from rlaif.places.traffic import MIN_MOVED, moved_bytes

MAX_PERIOD_S = 5.0
PERIODS = 10  #: at least, in the time after which silence is taken for a hang


class Heartbeat:
    """``send`` is called for a beat, not more often than once in a period, from any thread."""

    def __init__(self, send: Callable[[], object], silence_timeout_s: float) -> None:
        self._send = send
        self._period_s = min(MAX_PERIOD_S, silence_timeout_s / PERIODS)
        self._last = float("-inf")

    def beat(self) -> None:
        now = time.monotonic()
        if now - self._last >= self._period_s:
            self._last = now
            self._send()

    def watch_files(self) -> None:
        """Beat in each period in which this process reads or writes a MiB, or waits for its turn to load on a GPU that
        it shares. The thread ends with the process."""
        threading.Thread(target=self._watch_files, daemon=True, name="heartbeat").start()

    def _watch_files(self) -> None:
        before = moved_bytes()
        while True:
            time.sleep(self._period_s)
            now = moved_bytes()
            if now - before >= MIN_MOVED or waits_for_turn():
                self.beat()
            before = now
