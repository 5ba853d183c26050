"""Whether probabilities are probabilities: reliability bins, expected calibration error, Brier score.

Shapes: ``probs`` [N] in [0, 1]; ``outcomes`` [N], 1 when what the probability speaks of happened, else 0.
Sources: Naeini et al. (AAAI 2015) for the binned error; Brier (Monthly Weather Review 78, 1950).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Probabilities in [low, high): their mean, how often it happened, how many there are."""

    low: float
    high: float
    mean_prob: float
    frequency: float
    count: int


def reliability(probs: np.ndarray, outcomes: np.ndarray, num_bins: int = NUM_BINS) -> tuple[Bin, ...]:
    """Equally wide bins over [0, 1], empty ones left out; 1 itself belongs to the last bin."""
    index = np.minimum((probs * num_bins).astype(int), num_bins - 1)
    return tuple(
        Bin(
            low=b / num_bins,
            high=(b + 1) / num_bins,
            mean_prob=float(probs[index == b].mean()),
            frequency=float(outcomes[index == b].mean()),
            count=int((index == b).sum()),
        )
        for b in np.unique(index)
    )


def expected_calibration_error(probs: np.ndarray, outcomes: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Mean over rows of |mean probability - frequency| of the row's bin."""
    bins = reliability(probs, outcomes, num_bins)
    return sum(bin.count * abs(bin.mean_prob - bin.frequency) for bin in bins) / len(probs)


def brier_score(probs: np.ndarray, outcomes: np.ndarray) -> float:
    """Mean squared difference; 0.25 is what 0.5 for everything gets."""
    return float(((probs - outcomes) ** 2).mean())
