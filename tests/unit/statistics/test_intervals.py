import pytest

from rlaif.statistics.intervals import wilson


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_known_intervals(hits, trials, low, high):
    assert wilson(hits, trials) == pytest.approx((low, high), abs=1e-4)


def test_half_hits_and_no_trials():
    assert wilson(4.5, 10)[0] < 0.45 < wilson(4.5, 10)[1]
    assert wilson(0, 0) == (0.0, 1.0)
