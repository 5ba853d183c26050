"""Weights as an object reference: written once to the object store, read by every engine from its own node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.cluster import remote
from rlaif.interfaces import VersionedWeights


@dataclass(frozen=True, kw_only=True)
class SharedWeights:
    """One version of a model's weights in the object store. ``ref`` resolves to ``rlaif.interfaces.Weights``."""

    version: int
    ref: Any


def share_weights(weights: VersionedWeights) -> SharedWeights:
    """Put ``weights`` in the object store, unless they are there already."""
    if isinstance(weights, SharedWeights):
        return weights
    return SharedWeights(version=weights.version, ref=remote.put(weights))
