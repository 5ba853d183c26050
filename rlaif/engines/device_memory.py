"""What an engine that cannot start says: how much memory there was, how much it asked for, which setting to change."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from rlaif.config.schema import PoolSettings
from rlaif.engines.turns import card_of_process
from rlaif.errors import EngineError, describe_error

MAX_CAUSE_CHARS = 300
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Of a card, or of this machine where there is none; in bytes."""

    place: str
    free: int
    total: int

    @classmethod
    def of_host(cls) -> DeviceMemory:
        memory = psutil.virtual_memory()
        return cls(place="this machine", free=memory.available, total=memory.total)

    @classmethod
    def of_gpu(cls) -> DeviceMemory:
        """Of the card that this process has."""
        import torch

        free, total = torch.cuda.mem_get_info()
        return cls(place=f"GPU {card_of_process()}", free=free, total=total)


def start_failure(
    role: str, settings: PoolSettings, before: DeviceMemory | None, error: BaseException, *, on_gpu: bool
) -> EngineError:
    """One line. ``before``: the memory before the engine took any; None where that is not known, because
    tensor-parallel ranks start on cards that this process does not have."""
    who = "each rank"
    if before is not None:
        who = f"{before.place} had {_gib(before.free)} of {_gib(before.total)} GiB free, and the engine"
    asked, fix = _gpu_demand(role, settings, before) if on_gpu else _host_demand(role, settings, before)
    return EngineError(f"{who} asked for {asked}: {describe_error(error)[:MAX_CAUSE_CHARS]}; {fix}")


def _gpu_demand(role: str, settings: PoolSettings, before: DeviceMemory | None) -> tuple[str, str]:
    """What was asked of a card, and the fix."""
    fraction, key = settings.gpu_memory_fraction, f"{role}.gpu_memory_fraction"
    asked = f"{key}={fraction:g} of " + (f"it, {_gib(fraction * before.total)} GiB" if before else "its GPU")
    if before is not None and before.free < fraction * before.total:
        most = int(100 * before.free / before.total) / 100
        return asked, f"set {key} to at most {most:g}, or lower the shares of the others on that card"
    return asked, f"raise {key} if weights leave no room for the cache, or lower {role}.max_length or its max_in_flight"


def _host_demand(role: str, settings: PoolSettings, before: DeviceMemory | None) -> tuple[str, str]:
    key, size = f"{role}.kv_cache_gib", settings.kv_cache_gib
    asked = f"{size:g} GiB for its cache ({key})"
    if before is not None and before.free < size * _GIB:
        return asked, f"set {key} to less than {_gib(before.free)}"
    return asked, f"raise {key}, or lower {role}.max_length"


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f}"
