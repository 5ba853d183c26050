"""The shares of AI labels and human pairs hold through any number of refreshes, while there are human pairs."""

from random import Random

import pyarrow as pa
import pytest

from rlaif.config.schema import PreferenceModel, Refresh
from rlaif.stages.reinforcement.preference_loops import refreshed_mix
from rlaif.training.training_sets import PAIR_SCHEMA

RATIO = 0.74


def rows(axis: str, first: int, num: int) -> pa.Table:
    made = [{"id": f"{axis}:{i}", "axis": axis, "prompt": "p", "weight": 1.0} for i in range(first, first + num)]
    return pa.Table.from_pylist(made, PAIR_SCHEMA)


def share_through_refreshes(num_refreshes: int, num_fresh: int, num_reserve: int, max_pairs: int | None) -> list[float]:
    settings = PreferenceModel(helpful_per_harmless=RATIO, refresh=Refresh(every=1, max_pairs=max_pairs))
    fit = pa.concat_tables([rows("harmless", 0, 500), rows("helpful", 0, 370)])
    reserve, shares = rows("helpful", 370, num_reserve), []
    for version in range(num_refreshes):
        fresh = rows("harmless", 500 + version * num_fresh, num_fresh)
        fit = pa.concat_tables([*refreshed_mix(fit, reserve, num_fresh, settings, Random(version)), fresh])
        ids = fit["id"].to_pylist()
        assert len(set(ids)) == len(ids) and set(fresh["id"].to_pylist()) <= set(ids)
        assert max_pairs is None or len(ids) <= max_pairs
        shares.append(fit["axis"].to_pylist().count("helpful") / fit["axis"].to_pylist().count("harmless"))
    return shares


@pytest.mark.parametrize("max_pairs", [None, 900, 600])
def test_the_share_of_human_pairs_holds(max_pairs):
    shares = share_through_refreshes(10, num_fresh=100, num_reserve=740, max_pairs=max_pairs)
    assert all(share == pytest.approx(RATIO, abs=0.01) for share in shares)


def test_when_the_reserve_is_used_up_all_human_pairs_are_fitted_on():
    shares = share_through_refreshes(4, num_fresh=100, num_reserve=74, max_pairs=None)
    assert shares == pytest.approx([444 / 600, 444 / 700, 444 / 800, 444 / 900])


def test_without_human_pairs_there_is_room_for_labels_alone():
    settings = PreferenceModel(refresh=Refresh(every=1, max_pairs=300))
    harmless, helpful = refreshed_mix(rows("harmless", 0, 500), rows("helpful", 0, 0), 100, settings, Random(0))
    assert (harmless.num_rows, helpful.num_rows) == (200, 0)
