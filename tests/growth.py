"""Whether work grows in proportion to the size of its input: a question about ratios, with a wide margin. And whether
it ends at all, where a fault would have it go on for ever."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

FACTOR = 4  #: between the two sizes that are compared; quadratic work grows by its square
NOT_MEASURED_S = 0.004  #: work that is faster on the smaller input is not slow on any input that counts


PATIENCE_S = 120  #: far beyond what anything takes that ends


@contextmanager
def must_end() -> Iterator[None]:
    """Fails, instead of waiting for ever, when what is inside does not end. For the main thread alone."""

    def give_up(*_: object) -> NoReturn:
        raise AssertionError(f"it has not ended in {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_linear(work: Callable[[str], object], small: str, large: str, *, what: str = "") -> None:
    """Raises AssertionError when ``work`` takes far more on ``large``, ``FACTOR`` times as long as ``small``, than in
    proportion."""
    if seconds(work, small) < NOT_MEASURED_S:
        return
    once, again = (min(seconds(work, text) for _ in range(3)) for text in (small, large))
    assert again < 2 * FACTOR * once + NOT_MEASURED_S, f"{what or large[:80]!r}: {once:.4f} s, then {again:.4f} s"


def seconds(work: Callable[[str], object], text: str) -> float:
    """Of this thread alone: other processes do not count."""
    started = time.thread_time()
    work(text)
    return time.thread_time() - started
