"""A number with its 95% interval, and the cases that a rate or a mean is over."""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from rlaif.statistics.clusters import design_effect
from rlaif.statistics.intervals import mean_interval, wilson


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class CountedEstimate(Estimate):
    """An estimate and its number of cases."""

    num: int


@dataclass(kw_only=True)
class Cases:
    """Values, and what each belongs to: those with the same cluster are not independent. 16 bytes a case."""

    values: array[float] = field(default_factory=lambda: array("d"))
    clusters: array[int] = field(default_factory=lambda: array("q"))

    def add(self, value: float, cluster: Hashable) -> None:
        self.values.append(value)
        self.clusters.append(hash(cluster))

    @property
    def num(self) -> int:
        return len(self.values)

    def rate(self) -> CountedEstimate:
        """The share of hits, of values in [0, 1], of which one may count half."""
        return rate_of(np.array(self.values), np.array(self.clusters))

    def mean(self) -> CountedEstimate:
        return mean_of(np.array(self.values), np.array(self.clusters))


def rate_of(hits: np.ndarray, clusters: np.ndarray) -> CountedEstimate:
    """The mean of ``hits`` [N] in [0, 1], with Wilson's interval over as many cases as N clustered ones are worth."""
    num, total = len(hits), sum_in_order(hits)
    effect = design_effect(hits, clusters) if num else 1.0
    low, high = wilson(total / effect, num / effect)
    return CountedEstimate(value=total / max(1, num), low=low, high=high, num=num)


def mean_of(values: np.ndarray, clusters: np.ndarray) -> CountedEstimate:
    """The mean of ``values`` [N], with the normal interval, wider by the root of the design effect."""
    num, total = len(values), sum_in_order(values)
    low, high = mean_interval(total, sum_in_order(values * values), num)
    value = total / max(1, num)
    if num:
        wider = math.sqrt(design_effect(values, clusters))
        low, high = value + (low - value) * wider, value + (high - value) * wider
    return CountedEstimate(value=value, low=low, high=high, num=num)


def sum_in_order(values: np.ndarray) -> float:
    """From the first to the last, as a running total; numpy's own sum adds in pairs, which changes the last digits."""
    return float(np.cumsum(values)[-1]) if len(values) else 0.0
