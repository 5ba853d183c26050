"""How rows reach the ranks: Ray Data reads and shuffles, and each optimizer step's rows are dealt out to the ranks.

Ray Data's own split drops rows to make shards equal. Here every rank goes over the same shuffled rows, in the same
order and by reference, and takes every ``world_size``-th row of each batch: no row is lost, batches are those of a
run on one rank, and all ranks see the same number of batches. Tasks ask for no CPU, so they run while actors hold all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.dataset
import ray.data
import ray.train
from ray.data import DataContext, DataIterator, Dataset
from ray.train import DataConfig

from rlaif.config.schema import Optimization
from rlaif.errors import DataError
from rlaif.jobs import Rank
from rlaif.seeds import seed_from

#: Its reports on how it reads a file are of no use to people who watch a run.
logging.getLogger("ray.data").setLevel(logging.WARNING)


class EveryRowToEveryRank(DataConfig):
    """Each data set is read and shuffled once, when the ranks first ask for it."""

    def configure(
        self, datasets: dict[str, Dataset], world_size: int, *_: Any, **__: Any
    ) -> list[dict[str, DataIterator]]:
        shards: list[dict[str, DataIterator]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            dataset.context.execution_options.preserve_order = True
            rows = dataset.materialize()
            for shard in shards:
                shard[name] = rows.iterator()
        return shards


def count_rows(path: str) -> int:
    """Rows of a parquet file or directory, from its metadata. Raises DataError when it is not one, or empty."""
    try:
        count = pyarrow.dataset.dataset(path, format="parquet").count_rows()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error
    if not count:
        raise DataError(f"{path}: has no rows to train on")
    return count


def epochs_of(name: str, path: str, epochs: int, seed: int) -> dict[str, Dataset]:
    """One lazily shuffled data set an epoch, as ``datasets`` of a Ray trainer."""
    DataContext.get_current().enable_progress_bars = False
    # the newer reader starts eight processes to read the footer of one file
    ray.data.DataContext.get_current().use_datasource_v2 = False
    return {
        f"{name}-{epoch}": ray.data.read_parquet(path, num_cpus=0, override_num_blocks=1).random_shuffle(
            seed=seed_from("shuffle", seed, name, epoch) % 2**31, num_cpus=0
        )
        for epoch in range(epochs)
    }


def share_of(batch: pyarrow.Table, rank: Rank) -> list[dict[str, Any]]:
    """Every ``world_size``-th row, from the rank's own number on; none where there are fewer rows than ranks."""
    places = range(rank.index, batch.num_rows, rank.world_size)
    rows: list[dict[str, Any]] = batch.take(pyarrow.array(places, pyarrow.int64())).to_pylist()
    return rows


class Shares:
    """This rank's share of every batch, over all epochs. ``num_rows``: rows given out so far."""

    def __init__(self, name: str, optimization: Optimization, rank: Rank) -> None:
        self._name, self._optimization, self._rank = name, optimization, rank
        self.num_rows = 0

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for epoch in range(self._optimization.epochs):
            rows = ray.train.get_dataset_shard(f"{self._name}-{epoch}")
            for batch in rows.iter_batches(batch_size=self._optimization.batch_size, batch_format="pyarrow"):
                share = share_of(batch, self._rank)
                self.num_rows += len(share)
                yield share
