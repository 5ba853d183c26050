"""Confidence intervals of rates, means and correlations."""

from __future__ import annotations

import math

Z_95 = 1.959964  #: the standard normal's 97.5% point


def wilson(num_hits: float, num_trials: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a rate; it stays inside [0, 1] and has a width even at 0 and 1.

    ``num_hits`` may be fractional, where a tie counts as half a hit, and so may ``num_trials``, where it is an
    effective number. Without trials: (0, 1).
    Source: Wilson, Journal of the American Statistical Association 22 (1927).
    """
    if num_trials == 0:
        return 0.0, 1.0
    rate, spread = num_hits / num_trials, z * z / num_trials
    middle = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(total: float, total_squares: float, count: int, z: float = Z_95) -> tuple[float, float]:
    """Normal interval of a mean, from the sum and the sum of squares of its values. Without values: (0, 0)."""
    if count == 0:
        return 0.0, 0.0
    mean = total / count
    variance = max(0.0, total_squares / count - mean * mean) * count / max(count - 1, 1)
    half = z * math.sqrt(variance / count)
    return mean - half, mean + half


def correlation_interval(correlation: float, num_pairs: float, z: float = Z_95) -> tuple[float, float]:
    """Fisher's interval of a correlation over ``num_pairs``, which may be an effective number. With three or fewer:
    (-1, 1).

    Source: Fisher, Metron 1 (1921).
    """
    if num_pairs <= 3:
        return -1.0, 1.0
    if abs(correlation) >= 1:
        return correlation, correlation
    middle, half = math.atanh(correlation), z / math.sqrt(num_pairs - 3)
    return math.tanh(middle - half), math.tanh(middle + half)
