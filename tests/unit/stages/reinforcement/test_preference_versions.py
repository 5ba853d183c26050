import pytest

from rlaif.config.schema import Refresh, Reinforcement
from rlaif.stages.reinforcement.preference_versions import num_refreshes, starts_at, version_for


@pytest.mark.parametrize(
    ("every", "max_lag", "versions"),
    [
        (0, 0, [0, 0, 0, 0, 0, 0, 0]),
        (2, 0, [0, 0, 1, 1, 2, 2, 3]),
        (2, 1, [0, 0, 0, 1, 1, 2, 2]),
        (3, 5, [0, 0, 0, 0, 0, 0, 0]),
        (1, 3, [0, 0, 0, 0, 1, 2, 3]),
    ],
)
def test_the_version_of_a_batch_follows_from_counts(every, max_lag, versions):
    refresh = Refresh(every=every, max_lag=max_lag)
    assert [version_for(refresh, batch) for batch in range(7)] == versions
    assert num_refreshes(Reinforcement(batches=7), refresh) == versions[-1]


def test_without_lag_a_refresh_sees_the_policy_that_its_model_scores_first():
    refresh = Refresh(every=4)
    assert version_for(refresh, starts_at(refresh, 2)) == 2
    assert version_for(refresh, starts_at(refresh, 2) - 1) == 1
