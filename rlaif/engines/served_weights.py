"""Whether what an engine's processes serve, taken together, is what the learner sent. Needs neither vLLM nor torch.

A *part* is a rectangle of a sent tensor, read as ``checksums`` reads it. Ranks may hold different parts of a tensor
(tensor parallelism), or the same one (norms, and key and value heads where there are fewer of them than ranks).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from rlaif.errors import WeightSyncError

_logger = logging.getLogger(__name__)

NAMED = 8  #: parameters that a message names
Box = tuple[int, int, int, int]  #: first row, first column, rows, columns


@dataclass(frozen=True, kw_only=True)
class ServedPart:
    """``names``: of the sent tensor, several if it is tied. ``bits``: the sum of its bits as they are served, and
    ``expected`` of those that were sent, rounded, where the number format is another; else None."""

    names: tuple[str, ...]
    box: Box
    bits: int
    expected: int | None


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """What a process serves. ``unloaded``: parameters into which nothing, or not everything, was loaded. ``opaque``:
    those that hold something that cannot be followed to what was sent."""

    parts: tuple[ServedPart, ...]
    unloaded: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()


def check_served(
    checksums: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], read_back: Sequence[ReadBack]
) -> None:
    """Raises WeightSyncError, naming the parameters, unless every tensor of ``checksums`` is served, bit by bit, and
    everything that is served was sent."""
    refuse({name for one in read_back for name in one.unloaded}, "were not wholly loaded")
    parts: dict[tuple[str, ...], dict[Box, set[int]]] = {}
    wrong: set[str] = set()
    for part in (part for one in read_back for part in one.parts):
        parts.setdefault(part.names, {}).setdefault(part.box, set()).add(part.bits)
        if part.expected not in (None, part.bits):
            wrong.update(part.names)
    rounded = {part.names for one in read_back for part in one.parts if part.expected is not None}
    for names, by_box in parts.items():
        sums = [bits for several in by_box.values() for bits in several]
        if len(sums) > len(by_box) or (names not in rounded and sum(sums) % 2**64 != checksums[names[0]]):
            wrong.update(names)
    refuse(wrong, "have other bits")
    whole = {names: sum(rows * columns for *_, rows, columns in by_box) for names, by_box in parts.items()}
    arrived = {name for names, size in whole.items() if size == prod(shapes[names[0]]) for name in names}
    missing = checksums.keys() - arrived
    opaque = {name for one in read_back for name in one.opaque}
    if not opaque:
        refuse(missing, "did not arrive")
    elif missing:
        _logger.warning(
            "only their probe proves these weights, which vLLM changes as it loads them: %s", sorted(opaque)
        )


def check_sums(sent: Mapping[str, int], served: Mapping[str, int]) -> None:
    """Raises WeightSyncError, naming the parameters, unless both are equal: for an engine that serves whole tensors."""
    refuse({name for name in sent if served.get(name) != sent[name]}, "have other bits")


def refuse(names: Iterable[str], what: str) -> None:
    """Raises WeightSyncError that ``names`` are ``what``, unless there are none."""
    if names := sorted(names):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise WeightSyncError(
            f"the engine does not serve the weights that were sent: {', '.join(names[:NAMED])}{more} {what}"
        )
