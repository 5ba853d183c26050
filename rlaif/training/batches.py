"""Rows, micro-batches and padding.

A micro-batch holds at most ``max_tokens`` padded tokens (always at least one row); rows are sorted by length first, so
that little of it is padding. Padding is on the right, and masks come from lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rlaif.errors import DataError

TrainingRow = Mapping[str, Any]  #: a row of a training set, as parquet gives it: columns are in ``rlaif.jobs``


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of rows, cut into micro-batches by length, longest first (so a lack of memory shows at once).

    The cheapest cut of the sorted rows, where a pass costs its padded tokens plus a sixteenth of ``max_tokens`` for
    being a pass at all: smaller micro-batches pad less, but there are more of them.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    costs, starts = [0.0], [0]  #: of the cheapest cut of the first n rows, and where its last micro-batch starts
    for end in range(1, len(order) + 1):
        cost, start = min(_last_cuts(lengths, order, costs, end, max_tokens))
        costs.append(cost)
        starts.append(start)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.insert(0, order[starts[end] : end])
        end = starts[end]
    return batches


def _last_cuts(
    lengths: Sequence[int], order: Sequence[int], costs: Sequence[float], end: int, max_tokens: int
) -> Iterator[tuple[float, int]]:
    """Cost of the first ``end`` rows for each place where their last micro-batch may start, and the place."""
    for start in range(end - 1, -1, -1):
        tokens = lengths[order[start]] * (end - start)
        if tokens > max_tokens and start < end - 1:
            return
        yield costs[start] + tokens + max_tokens / 16, start


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int) -> np.ndarray:
    """Token ids as a right-padded int64 array [B, T]; one token of padding, [1, 1], for no sequences at all, because a
    model needs something to run on."""
    out = np.full((max(1, len(sequences)), max(map(len, sequences), default=1)), pad_id, dtype=np.int64)
    for row, ids in zip(out, sequences, strict=False):
        row[: len(ids)] = ids
    return out


def spans(starts: Sequence[int], ends: Sequence[int], width: int) -> np.ndarray:
    """Flat indices into [B, ``width``] of the positions ``starts[b]`` .. ``ends[b]`` - 1 of every row, in order."""
    rows = enumerate(zip(starts, ends, strict=True))
    indices = [np.arange(b * width + start, b * width + end) for b, (start, end) in rows]
    return np.concatenate(indices) if indices else np.zeros(0, dtype=np.int64)


def read_rows(path: str) -> list[TrainingRow]:
    """All rows of a parquet data set (a file or a directory). Raises DataError when there are none."""
    try:
        rows: list[TrainingRow] = pq.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {error}") from error
    if not rows:
        raise DataError(f"{path}: has no rows to train on")
    return rows


def local_batches(dataset_path: str, batch_size: int, epochs: int, seed: int) -> Iterator[list[TrainingRow]]:
    """Batches for a run in one process: shuffled by ``seed`` in each epoch, with no row dropped and the tail kept."""
    rows = read_rows(dataset_path)
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(rows))
        for first in range(0, len(rows), batch_size):
            yield [rows[index] for index in order[first : first + batch_size]]
