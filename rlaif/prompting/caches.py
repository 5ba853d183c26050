"""Results that are remembered while they are small, so that no cache grows with what a row holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

MAX_CACHED_CHARS = 2048


def remember_short(
    maxsize: int, size: Callable[_P, int], longest: int = MAX_CACHED_CHARS
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """As ``lru_cache`` for calls whose ``size`` is at most ``longest``; all others are computed anew."""

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        remembered = lru_cache(maxsize)(function)

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if size(*args, **kwargs) > longest:
                return function(*args, **kwargs)
            return remembered(*args, **kwargs)  # type: ignore[arg-type]  # lru_cache asks for hashable arguments

        call.cache_info = remembered.cache_info  # type: ignore[attr-defined]
        return call

    return decorate
