"""A number with its 95% interval, and the running rates and means that give one."""

from __future__ import annotations

from dataclasses import dataclass

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
class Rate:
    """A running share; a hit may count half."""

    hits: float = 0.0
    num: int = 0

    def add(self, hit: float) -> None:
        self.hits += hit
        self.num += 1

    def estimate(self) -> CountedEstimate:
        low, high = wilson(self.hits, self.num)
        return CountedEstimate(value=self.hits / max(1, self.num), low=low, high=high, num=self.num)


@dataclass(kw_only=True)
class Mean:
    """A running mean."""

    total: float = 0.0
    squares: float = 0.0
    num: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.squares += value * value
        self.num += 1

    def estimate(self) -> CountedEstimate:
        low, high = mean_interval(self.total, self.squares, self.num)
        return CountedEstimate(value=self.total / max(1, self.num), low=low, high=high, num=self.num)
