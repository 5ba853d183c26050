"""How well probabilities are calibrated: reliability bins, expected calibration error, Brier score, temperature.

Shapes: ``probs`` [N] in [0, 1]; ``outcomes`` [N], 1 where the predicted event happened, else 0 (or a probability,
where only a soft label is known).
Sources: Naeini et al. (AAAI 2015) for the binned error; Brier (Monthly Weather Review 78, 1950); Guo et al. (ICML
2017), section 4.2, for the temperature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

NUM_BINS = 10
MAX_TEMPERATURE = 20.0


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Predictions in [low, high): their mean, how often the event happened, how many there are."""

    low: float
    high: float
    mean_prob: float
    frequency: float
    count: int


def reliability(
    probs: np.ndarray, outcomes: np.ndarray, num_bins: int = NUM_BINS, weights: np.ndarray | None = None
) -> tuple[Bin, ...]:
    """Equally wide bins over [0, 1], empty ones left out; 1 itself belongs to the last bin.

    Means are weighted by ``weights`` [N], how many rows each one stands for; a count is of rows, not of weights.
    """
    index = _bin_index(probs, num_bins)
    return tuple(
        Bin(
            low=b / num_bins,
            high=(b + 1) / num_bins,
            mean_prob=float(np.average(probs[index == b], weights=_part(weights, index == b))),
            frequency=float(np.average(outcomes[index == b], weights=_part(weights, index == b))),
            count=int((index == b).sum()),
        )
        for b in np.unique(index)
    )


def _bin_index(probs: np.ndarray, num_bins: int) -> np.ndarray:
    index: np.ndarray = np.minimum((probs * num_bins).astype(int), num_bins - 1)
    return index


def _part(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weights is None else weights[rows]


def bins_to_metrics(bins: Iterable[Bin], group: str) -> dict[str, float]:
    """Bins as plain metrics, ``GROUP/0.9_mean_prob`` and so on, where 0.9 is the bin's lower end."""
    return {
        f"{group}/{bin.low:.1f}_{figure}": value
        for bin in bins
        for figure, value in (("mean_prob", bin.mean_prob), ("frequency", bin.frequency), ("count", float(bin.count)))
    }


def bins_from_metrics(metrics: Mapping[str, float], group: str) -> list[dict[str, float]]:
    """The figures of each bin that ``bins_to_metrics`` wrote, from the lowest; other metrics are passed over."""
    bins: dict[str, dict[str, float]] = {}
    for key, value in sorted(metrics.items()):
        if key.startswith(f"{group}/"):
            low, figure = key.removeprefix(f"{group}/").split("_", 1)
            bins.setdefault(low, {})[figure] = value
    return list(bins.values())


def expected_calibration_error(
    probs: np.ndarray, outcomes: np.ndarray, num_bins: int = NUM_BINS, weights: np.ndarray | None = None
) -> float:
    """Mean over rows of |mean probability - frequency| of the row's bin; all means are weighted by ``weights`` [N]."""
    bins = reliability(probs, outcomes, num_bins, weights)
    if weights is None:
        return sum(bin.count * abs(bin.mean_prob - bin.frequency) for bin in bins) / len(probs)
    totals = np.bincount(_bin_index(probs, num_bins), weights=weights, minlength=num_bins)
    gaps = np.array([abs(bin.mean_prob - bin.frequency) for bin in bins])
    return float((totals[totals > 0] * gaps).sum() / totals.sum())


def brier_score(probs: np.ndarray, outcomes: np.ndarray) -> float:
    """Mean squared difference; always predicting 0.5 gives 0.25."""
    return float(((probs - outcomes) ** 2).mean())


def both_ways(probs: np.ndarray) -> np.ndarray:
    """[2N]: each pair and its mirror image. Which answer is called answer_1 may be arbitrary, or it may always be the
    better one; calibration must not depend on it."""
    return np.concatenate([probs, 1 - probs])


def fitted_temperature(logits: np.ndarray, outcomes: np.ndarray) -> float:
    """The T for which sigmoid(``logits`` [N] / T) has the least cross-entropy against ``outcomes``.

    Above 1: the logits are overconfident. Limited to [1/20, 20], whose ends are reached by logits that are always right
    or uninformative.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return cross_entropy(logits / math.exp(log_temperature), outcomes)

    bound = math.log(MAX_TEMPERATURE)
    return math.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)


def cross_entropy(logits: np.ndarray, outcomes: np.ndarray) -> float:
    """Mean negative log-likelihood of ``outcomes`` under sigmoid(``logits``)."""
    return float((np.logaddexp(0, logits) - outcomes * logits).mean())


@dataclass(kw_only=True)
class PairCalibration:
    """Running calibration of P(answer_1 better); memory does not grow with the pairs.

    Which answer is called answer_1 is arbitrary, so each pair counts both ways, with weight one half each.
    """

    num_pairs: int = 0
    sum_squares: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * NUM_BINS)
    probs: list[float] = field(default_factory=lambda: [0.0] * NUM_BINS)
    outcomes: list[float] = field(default_factory=lambda: [0.0] * NUM_BINS)

    def add(self, prob: float, first_is_better: bool) -> None:
        self.num_pairs += 1
        self.sum_squares += (prob - first_is_better) ** 2
        sure = max(prob, 1 - prob)  # P of the preferred answer; a tie is half right
        right = 0.5 if prob == 0.5 else float((prob > 0.5) == first_is_better)
        index = min(int(sure * NUM_BINS), NUM_BINS - 1)
        for bin, prediction, outcome in ((index, sure, right), (NUM_BINS - 1 - index, 1 - sure, 1 - right)):
            self.counts[bin] += 1
            self.probs[bin] += prediction
            self.outcomes[bin] += outcome

    @property
    def bins(self) -> tuple[Bin, ...]:
        return tuple(
            Bin(
                low=b / NUM_BINS,
                high=(b + 1) / NUM_BINS,
                mean_prob=self.probs[b] / count,
                frequency=self.outcomes[b] / count,
                count=count,
            )
            for b, count in enumerate(self.counts)
            if count
        )

    @property
    def error(self) -> float:
        """Expected calibration error; 0 without pairs."""
        gaps = (abs(prob - outcome) for prob, outcome in zip(self.probs, self.outcomes, strict=True))
        return sum(gaps) / max(1, 2 * self.num_pairs)

    @property
    def brier(self) -> float:
        return self.sum_squares / max(1, self.num_pairs)

    def summary(self) -> dict[str, object]:
        """For a JSON file and the report's plot."""
        return {
            "expected_calibration_error": self.error,
            "brier_score": self.brier,
            "bins": [vars(bin) for bin in self.bins],
        }
