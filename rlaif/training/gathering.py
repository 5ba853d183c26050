"""The tensors of a module, whole, though its parameters may be partitioned among the ranks (ZeRO-3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: Gathered, and sent, at once; a larger tensor is alone. Large enough that the time per bucket does not count, small
#: enough that the memory for it does not.
BUCKET_BYTES = 2**28


def whole_shape(tensor: Tensor) -> torch.Size:
    """Also of a parameter that is partitioned."""
    shape: torch.Size = getattr(tensor, "ds_shape", tensor.shape)
    return shape


@contextmanager
def gathered(*tensors: Tensor, changes: bool = False) -> Iterator[None]:
    """Those of ``tensors`` that are partitioned are whole inside the block, in device memory; with ``changes`` all
    ranks take over what rank 0 changes in them. Every rank must enter it with the same tensors."""
    import deepspeed

    parts = list({id(tensor): tensor for tensor in tensors if hasattr(tensor, "ds_tensor")}.values())
    with deepspeed.zero.GatheredParameters(parts, modifier_rank=0 if changes else None, enabled=bool(parts)):
        yield


def plan_buckets(tensors: Mapping[str, Tensor], size: int | None = None) -> list[dict[str, Tensor]]:
    """``tensors`` in buckets of ``size`` bytes (``BUCKET_BYTES``) at most, or of one tensor; tied ones together."""
    size = BUCKET_BYTES if size is None else size
    tied: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        tied.setdefault(id(tensor), {})[name] = tensor
    buckets: list[dict[str, Tensor]] = []
    room = 0
    for same in tied.values():
        tensor = next(iter(same.values()))
        num_bytes = whole_shape(tensor).numel() * tensor.element_size()
        if not buckets or num_bytes > room:
            buckets.append({})
            room = size
        buckets[-1] |= same
        room -= num_bytes
    return buckets


def gathered_state(module: nn.Module, bucket_bytes: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of ``module``'s state by its name, bucket by bucket, each whole until the next one is asked for.

    Every rank must go through all of it. A tied tensor comes under each of its names, one time with each.
    """
    for bucket in plan_buckets(module.state_dict(keep_vars=True), bucket_bytes):
        with gathered(*bucket.values()):
            for name, tensor in bucket.items():
                yield name, tensor.detach()
