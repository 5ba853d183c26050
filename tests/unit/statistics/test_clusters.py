import numpy as np
import pytest

from rlaif.statistics.clusters import design_effect
from rlaif.statistics.estimates import mean_of, rate_of


def effect(values, clusters):
    return design_effect(np.array(values, dtype=float), np.array(clusters))


def test_the_design_effect_by_hand():
    """Mean 0.5, deviations of a half. Sums by cluster 1 (two hits), 0 (one of each), -1 (two misses): 2 / 1.5."""
    assert effect([1, 1, 1, 0, 0, 0], [1, 1, 2, 2, 3, 3]) == pytest.approx(4 / 3)


def test_its_ends():
    assert effect([1, 0, 1], [5, 6, 7]) == 1  # no cluster has two
    assert effect([1, 1, 0, 0], [1, 1, 2, 2]) == 2  # alike: each counts once
    assert effect([1, 0, 1, 0], [1, 1, 2, 2]) == 1  # more unlike than by chance: no gain
    assert effect([1, 1, 1, 1], [1, 1, 2, 2]) == 2  # all alike: as if the clusters were the cause
    assert effect([1, 0, 1, 0], [1, 1, 1, 1]) == 4  # one cluster is one case
    assert effect([1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 3, 4]) == pytest.approx((9 + 3) / 6)


def test_a_mean_over_clusters_is_that_of_the_clusters():
    clusters, values = np.repeat(np.arange(200), 4), np.repeat(np.random.default_rng(0).normal(size=200), 4)
    assert mean_of(values, clusters).value == pytest.approx(values.mean())
    of_clusters, without = mean_of(values[::4], clusters[::4]), mean_of(values, np.arange(800))
    width, honest, narrow = (e.high - e.low for e in (mean_of(values, clusters), of_clusters, without))
    assert width == pytest.approx(honest, rel=0.01) and narrow == pytest.approx(honest / 2, rel=0.01)


def test_intervals_over_clusters_hold_the_truth_as_often_as_they_say():
    """300 samples of 80 prompts, each answered 6 times at a rate of its own around 0.4."""
    rng, held, naive = np.random.default_rng(1), 0, 0
    for _ in range(300):
        rates = np.repeat(rng.beta(0.8, 1.2, size=80), 6)
        hits = (rng.random(480) < rates).astype(float)
        for_prompts, for_answers = (rate_of(hits, c) for c in (np.repeat(np.arange(80), 6), np.arange(480)))
        held += for_prompts.low <= 0.4 <= for_prompts.high
        naive += for_answers.low <= 0.4 <= for_answers.high
    assert held / 300 > 0.92 and naive / 300 < 0.85


def test_nothing_has_no_rate():
    nothing = rate_of(np.array([]), np.array([]))
    assert (nothing.value, nothing.low, nothing.high, nothing.num) == (0, 0, 1, 0)
    assert mean_of(np.array([]), np.array([])).num == 0


def test_it_is_the_same_to_the_last_bit_whatever_the_clusters_are_called():
    """They are hashes, which are others in each process."""
    chance = np.random.default_rng(0)
    clusters = chance.integers(0, 300, 2000)
    values = chance.normal(size=300)[clusters] + chance.normal(size=2000)
    names = chance.permutation(300)
    effect = design_effect(values, clusters)
    assert effect > 2
    assert all(design_effect(values, chance.permutation(names)[clusters]) == effect for _ in range(20))
