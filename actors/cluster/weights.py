"""Weights as object references: each bucket is written once to the object store, and read by every engine from its own
node. The store frees a version's buckets when nobody has a ``SharedWeights`` of it any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.cluster import remote
from rlaif.interfaces import VersionedWeights, Weights, WeightsHeader


@dataclass(frozen=True, kw_only=True)
class SharedWeights:
    """One version of a model's weights in the object store. ``buckets``: references to ``interfaces.WeightBucket``."""

    header: WeightsHeader
    buckets: Sequence[Any]

    @property
    def version(self) -> int:
        return self.header.version


def share_weights(weights: VersionedWeights) -> SharedWeights:
    """Put ``weights`` in the object store, unless they are there already."""
    if isinstance(weights, SharedWeights):
        return weights
    assert isinstance(weights, Weights)
    return SharedWeights(header=weights.header, buckets=[remote.put(bucket) for bucket in weights.buckets])
