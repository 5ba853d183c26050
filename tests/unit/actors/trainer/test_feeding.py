"""How a batch is dealt out to the ranks."""

import pyarrow as pa
import pytest

from actors.trainer.feeding import share_of
from rlaif.jobs import Rank


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 8])
def test_each_row_goes_to_one_rank_also_when_there_are_fewer_rows_than_ranks(num_rows: int) -> None:
    batch = pa.table({"id": pa.array([str(number) for number in range(num_rows)], pa.string())})
    shares = [[row["id"] for row in share_of(batch, Rank(index=index, world_size=3))] for index in range(3)]
    assert sorted(id for share in shares for id in share) == [str(number) for number in range(num_rows)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
