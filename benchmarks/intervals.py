"""Confidence intervals over the seeds of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def paired_interval(differences: Sequence[float]) -> dict[str, float]:
    """Mean and 95% interval of paired differences, by Student's t; infinitely wide for a single one."""
    from scipy.stats import t

    num, mean = len(differences), float(np.mean(differences))
    half = float(t.ppf(0.975, num - 1) * np.std(differences, ddof=1) / np.sqrt(num)) if num > 1 else float("inf")
    return {"mean": mean, "low": mean - half, "high": mean + half}
