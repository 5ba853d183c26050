"""The mean difference between an engine and the learner, and its limits."""

import math

import pytest

from rlaif.engines.proof import check_probe
from rlaif.errors import WeightSyncError
from rlaif.interfaces import Probe, WeightsHeader

HEADER = WeightsHeader(
    version=3, shapes={}, num_buckets=1, probe=Probe(token_ids=((1, 2, 3), (4, 5)), values=((-1.0, -2.0), (-30.0,)))
)


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-3), ("bfloat16", 0.125)])
def test_the_mean_counts_and_not_the_worst(dtype, limit):
    check_probe(HEADER, [(-1.0, -2.0), (-30.0 + 2.9 * limit,)], dtype)
    with pytest.raises(WeightSyncError, match=rf"3 probed values differ by .* \(at most {limit:g} in {dtype}"):
        check_probe(HEADER, [(-1.0, -2.0), (-30.0 + 3.1 * limit,)], dtype)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(WeightSyncError):
        check_probe(HEADER, [(-1.0, -2.0), (value,)], "bfloat16")
