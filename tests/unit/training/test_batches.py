"""Micro-batches, padding and one-process batches: no row is lost, and there is little padding."""

from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.jobs import Rank
from rlaif.records import ScoredSample
from rlaif.training import collectives
from rlaif.training.batches import local_batches, micro_batches, pad_right, read_rows, spans
from rlaif.training.collectives import even_passes
from rlaif.training.rollouts import draw_minibatches, micro_batch, rank_share

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths, max_tokens):
    batches = micro_batches(lengths, max_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= max_tokens


@given(LENGTHS, st.integers(1, 200), st.integers(1, 5))
def test_ranks_share_all_rows_in_equally_many_passes(lengths, max_tokens, world_size):
    rows = list(range(0, len(lengths), 2))
    ranks = [Rank(index=i, world_size=world_size) for i in range(world_size)]
    shares = [rank_share(lengths, rows, max_tokens, rank) for rank in ranks]
    most = max(map(len, shares))
    with mock.patch.object(collectives, "max_over_ranks", return_value=most):
        plans = [list(even_passes(own, rank, torch.device("cpu"))) for own, rank in zip(shares, ranks, strict=True)]
    assert len({len(plan) for plan in plans}) == 1
    assert [plan[: len(own)] for plan, own in zip(plans, shares, strict=True)] == shares
    assert sorted(row for plan in plans for batch in plan for row in batch) == rows


def test_no_batches_of_no_rows():
    assert micro_batches([], 10) == []


def test_padding_is_on_the_right_and_spans_skip_it():
    ids = pad_right([[1, 2, 3], [4]], pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert spans([1, 0], [3, 1], width=3).tolist() == [1, 2, 3]
    assert ids.reshape(-1)[spans([1, 0], [3, 1], width=3)].tolist() == [2, 3, 4]


def test_a_pass_over_no_rows_runs_on_one_token_of_padding_and_reads_nothing():
    assert pad_right([], pad_id=9).tolist() == [[9]]
    assert spans([], [], width=1).tolist() == []
    micro = micro_batch([], [], torch.device("cpu"))
    assert (micro.input_ids.shape, micro.positions.shape, micro.targets.shape) == ((1, 1), (0,), (0,))


def test_minibatches_hold_every_row_once_an_epoch_in_another_order_each():
    batches = list(draw_minibatches(10, 4, epochs=2, key=(3, 0)))
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    first, second = ([row for batch in half for row in batch] for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert list(draw_minibatches(10, 4, epochs=2, key=(3, 0))) == batches
    assert list(draw_minibatches(10, 4, epochs=2, key=(3, 1))) != batches


def write(path, count):
    pq.write_table(pa.table({"id": [str(i) for i in range(count)], "n": list(range(count))}), path)
    return str(path)


def test_local_batches_keep_every_row_and_the_tail_and_repeat_by_seed(tmp_path):
    path = write(tmp_path / "rows.parquet", 10)
    batches = [[row["n"] for row in batch] for batch in local_batches(path, 4, 2, seed=3)]
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    first, second = ([n for batch in half for n in batch] for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    again = [[row["n"] for row in batch] for batch in local_batches(path, 4, 2, seed=3)]
    assert again == batches
    other = [[row["n"] for row in batch] for batch in local_batches(path, 4, 2, seed=4)]
    assert other != batches


def test_a_file_without_rows_or_without_parquet_is_named(tmp_path):
    with pytest.raises(DataError, match=r"empty\.parquet"):
        read_rows(write(tmp_path / "empty.parquet", 0))
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"text\.parquet"):
        read_rows(str(tmp_path / "text.parquet"))


def test_scored_samples_are_frozen_and_picklable():
    import pickle

    sample = ScoredSample(
        id="f:1",
        axis="helpful",
        prompt_ids=(1,),
        response_ids=(2,),
        logprobs=(-1.0,),
        finish_reason="stop",
        score=0.5,
        policy_version_start=0,
        preference_model_version=0,
    )
    assert pickle.loads(pickle.dumps(sample)) == sample
    assert np.shape(sample.response_ids) == (1,)
