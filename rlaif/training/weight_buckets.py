"""Weights on their way to engines: gathered a bucket at a time, in the dtype in which they are trained.

No rank ever holds more of a partitioned model than its own share, one tensor, and on rank 0 one bucket in host memory:
the next one is gathered when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from rlaif.engines.checksums import as_numpy, bit_sum
from rlaif.interfaces import Probe, WeightBucket, Weights, WeightsHeader
from rlaif.jobs import Rank
from rlaif.training.partitioned import BUCKET_BYTES

if TYPE_CHECKING:
    from rlaif.training.deepspeed import DeepSpeedModel

Tensors = Mapping[str, Tensor]


def gather_weights(model: DeepSpeedModel, prefix: str, rank: Rank, version: int, probe: Probe) -> Weights:
    """All weights of ``model`` by their names without ``prefix``.

    Every rank must call it, and go through the buckets before the weights change; only rank 0's have tensors.
    """
    tensors = {name.removeprefix(prefix): tensor for name, tensor in model.module.state_dict(keep_vars=True).items()}
    plan = plan_buckets(tensors)
    shapes = {name: tuple(getattr(tensor, "ds_shape", tensor.shape)) for name, tensor in tensors.items()}
    header = WeightsHeader(version=version, shapes=shapes, num_buckets=len(plan), probe=probe)
    return Weights(header=header, buckets=(_gather(model, bucket, rank) for bucket in plan))


def plan_buckets(tensors: Tensors, size: int | None = None) -> list[Tensors]:
    """The tensors in buckets of ``size`` bytes (``BUCKET_BYTES``) at most, or of one tensor; tied ones together."""
    size = BUCKET_BYTES if size is None else size
    tied: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        tied.setdefault(id(tensor), {})[name] = tensor
    buckets: list[dict[str, Tensor]] = []
    room = 0
    for same in tied.values():
        tensor = next(iter(same.values()))
        num_bytes = getattr(tensor, "ds_numel", tensor.numel()) * tensor.element_size()
        if not buckets or num_bytes > room:
            buckets.append({})
            room = size
        buckets[-1] |= same
        room -= num_bytes
    return list(buckets)


def _gather(model: DeepSpeedModel, tensors: Tensors, rank: Rank) -> WeightBucket:
    arrays, sums = {}, {}
    for key, tensor in {id(tensor): tensor for tensor in tensors.values()}.items():
        with model.gathered(tensor):
            if rank.index == 0:
                sums[key] = bit_sum(tensor)
                arrays[key] = as_numpy(tensor.detach().to("cpu", copy=True))
        rank.beat()
    mine = {name: id(tensor) for name, tensor in tensors.items() if id(tensor) in arrays}
    return WeightBucket(
        tensors={name: arrays[key] for name, key in mine.items()},  # a tied head travels once
        checksums={name: sums[key] for name, key in mine.items()},
    )
