"""Weights on their way to engines: gathered a bucket at a time, in the dtype in which they are trained.

No rank ever holds more of a partitioned model than its own share and one bucket, which rank 0 copies to host memory:
the next one is gathered when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from rlaif.engines.checksums import as_numpy, bit_sum
from rlaif.interfaces import Probe, WeightBucket, Weights, WeightsHeader
from rlaif.jobs import Rank
from rlaif.training.gathering import gathered, plan_buckets, whole_shape

Tensors = Mapping[str, Tensor]


def gather_weights(module: nn.Module, prefix: str, rank: Rank, version: int, probe: Probe) -> Weights:
    """All weights of ``module`` by their names without ``prefix``.

    Every rank must call it, and go through the buckets before the weights change; only rank 0's have tensors.
    """
    tensors = {name.removeprefix(prefix): tensor for name, tensor in module.state_dict(keep_vars=True).items()}
    plan = plan_buckets(tensors)
    shapes = {name: tuple(whole_shape(tensor)) for name, tensor in tensors.items()}
    header = WeightsHeader(version=version, shapes=shapes, num_buckets=len(plan), probe=probe)
    return Weights(header=header, buckets=(_gather(bucket, rank) for bucket in plan))


def _gather(tensors: Tensors, rank: Rank) -> WeightBucket:
    arrays, sums = {}, {}
    with gathered(*tensors.values()):
        for key, tensor in {id(tensor): tensor for tensor in tensors.values()}.items():
            if rank.index == 0:
                sums[key] = bit_sum(tensor)
                arrays[key] = as_numpy(tensor.detach().to("cpu", copy=True))
            rank.beat()
    mine = {name: id(tensor) for name, tensor in tensors.items() if id(tensor) in arrays}
    return WeightBucket(
        tensors={name: arrays[key] for name, key in mine.items()},  # a tied head travels once
        checksums={name: sums[key] for name, key in mine.items()},
    )
