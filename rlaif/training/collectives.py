"""What ranks do together: sums, maxima, barriers, and equally many passes. A single rank needs no process group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

from rlaif.jobs import Rank

_Row = TypeVar("_Row")


def even_passes(plan: Sequence[list[_Row]], rank: Rank, device: torch.device) -> Iterator[list[_Row]]:
    """This rank's ``plan``, the rows of each forward pass, made as long as the longest of all ranks. The rank beats
    when a pass is over.

    What is missing is filled with passes over no rows. They add nothing to any sum, but ZeRO-3 gathers parameters in
    every pass, so all ranks must make equally many.
    """
    num_passes = max_over_ranks(len(plan), rank, device)
    return _beating([*plan, *([] for _ in range(num_passes - len(plan)))], rank)


def _beating(passes: Sequence[list[_Row]], rank: Rank) -> Iterator[list[_Row]]:
    for rows in passes:
        yield rows
        rank.beat()


def wait_for_all(rank: Rank) -> None:
    """Return when every rank has come here."""
    if rank.world_size > 1:
        torch.distributed.barrier()


def sum_tensor_over_ranks(tensor: Tensor, rank: Rank) -> Tensor:
    """``tensor`` itself, holding the sum over all ranks."""
    if rank.world_size > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def sum_over_ranks(values: Mapping[str, float], rank: Rank, device: torch.device) -> dict[str, float]:
    """Each value's sum over all ranks. Keys must be the same everywhere."""
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    return dict(zip(values, sum_tensor_over_ranks(tensor, rank).tolist(), strict=True))


def max_over_ranks(value: int, rank: Rank, device: torch.device) -> int:
    """The largest ``value`` of all ranks."""
    if rank.world_size == 1:
        return value
    tensor = torch.tensor(value, device=device)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    return int(tensor.item())
