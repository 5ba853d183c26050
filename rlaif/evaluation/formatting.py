"""Numbers as the report and the command line print them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(rate: float) -> str:
    return f"{100 * rate:.1f}%"


def percent_interval(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{percent(low)} – {percent(high)}"


def number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def duration(seconds: float) -> str:
    """``83`` -> ``1 min 23 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def words_of(name: str) -> str:
    """``no_harm`` -> ``no harm``."""
    return name.replace("_", " ")
