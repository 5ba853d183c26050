"""Whether work grows in proportion to the size of its input, a question about ratios with a wide margin; and whether it
ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

FACTOR = 4  #: between the two sizes that are compared; quadratic work grows by its square
NOT_MEASURED_S = 0.004  #: work that is faster on the smaller input is not slow on any input that counts


def check_linear(work: Callable[[str], object], small: str, large: str, *, what: str = "") -> None:
    """Raises AssertionError when ``work`` takes far more on ``large``, ``FACTOR`` times as long as ``small``, than in
    proportion."""
    if seconds(work, small) < NOT_MEASURED_S:
        return
    once, again = (min(seconds(work, text) for _ in range(3)) for text in (small, large))
    assert again < 2 * FACTOR * once + NOT_MEASURED_S, f"{what or large[:80]!r}: {once:.4f} s, then {again:.4f} s"


@contextmanager
def must_end(max_s: float = 60.0) -> Iterator[None]:
    """Raises AssertionError inside the block once this process has computed for ``max_s`` there, hundreds of times what
    it takes: work that never ends is a failure, and stops nobody's other tests. Waiting does not count."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"has not ended after {max_s:g} s of work")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, max_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def seconds(work: Callable[[str], object], text: str) -> float:
    """Of this thread alone: other processes do not count."""
    started = time.thread_time()
    work(text)
    return time.thread_time() - started
