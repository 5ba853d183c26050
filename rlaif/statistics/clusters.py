"""Cases that belong together, such as several votes on one pair or several answers to one prompt.

They say less than as many independent cases: an interval over n of them is as wide as one over n / deff, where deff is
the *design effect*, the variance of the mean with clusters over that without. It is 1 when no cluster has two cases,
and the size of the clusters when the cases of each are all alike.
Sources: Kish (Survey Sampling, 1965) for the effect; Liang and Zeger (Biometrika 73, 1986) for the variance.

Departures from the sources:
1. It is at least 1: clusters whose cases differ more than chance would have it do not make an interval narrower.
2. Where all cases are alike, or there is one cluster, nothing tells how alike those of a cluster are: it counts as one.
"""

from __future__ import annotations

import numpy as np


def design_effect(values: np.ndarray, clusters: np.ndarray) -> float:
    """Of the mean of ``values`` [N], where cases with the same number in ``clusters`` [N] belong together."""
    numbers, first, index = np.unique(clusters, return_index=True, return_inverse=True)
    index = np.argsort(np.argsort(first))[index]  # in the order in which they come: hashes sort otherwise each time
    if len(numbers) == len(values):
        return 1.0
    centred = values - values.mean()
    spread = float(centred @ centred)
    if len(numbers) == 1 or np.ptp(values) == 0:
        sizes = np.bincount(index)
        return float((sizes**2).sum() / len(values))
    sums = np.bincount(index, weights=centred)
    return max(1.0, float(sums @ sums) / spread)
