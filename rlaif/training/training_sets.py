"""Training rows in parquet files, which Ray Data (or one process) feeds to the ranks, and what became of every row."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.places.writing import replacing
from rlaif.records import Preference, PreferencePair
from rlaif.seeds import seed_from
from rlaif.storage.damage import reading
from rlaif.training.batches import TrainingRow
from rlaif.training.splits import SplitName
from rlaif.training.training_rows import LeftOut

SFT_SCHEMA = pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("prompt_length", pa.int32())])
PAIR_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("axis", pa.string()),
        ("prompt", pa.string()),
        ("input_ids_1", pa.list_(pa.int32())),
        ("input_ids_2", pa.list_(pa.int32())),
        ("prob", pa.float32()),
        ("weight", pa.float32()),
    ]
)
ROW_GROUP = 2_000

MadeRow = TrainingRow | LeftOut


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Rows given, rows written, and how many of these lost their oldest turns; the other rows were left out."""

    rows_in: int
    rows_out: int
    cut: int


# -------------------------------------------------------------------------------------------------------- choices
def ai_probs(labels: Iterable[Preference], shuffle: bool, seed: int) -> dict[str, float]:
    """P(answer_1 better) by label id, only for OK and TIE labels; permuted among them for the control."""
    probs = {label.id: label.prob for label in labels if label.prob is not None}
    if not shuffle:
        return probs
    permuted = np.random.default_rng(seed_from(seed, "shuffle_labels")).permutation(list(probs.values()))
    return dict(zip(probs, map(float, permuted), strict=True))


def draw_by_lot(pairs: Iterable[PreferencePair], num: int, seed: int) -> dict[str, int]:
    """``num`` pairs by lot, of all places of their file: their ids, numbered from 0 in the order drawn."""
    lots = ((seed_from(seed, "human pairs", pair.id), pair.id) for pair in pairs)
    return {id: number for number, (_, id) in enumerate(heapq.nsmallest(num, lots))}


# ---------------------------------------------------------------------------------------------------------- files
def write_sft_rows(path: Path, rows: Iterable[MadeRow], book: Callable[[LeftOut], None]) -> RowCounts:
    """Write the rows that are trained on; ``book`` takes the others."""
    return _write(path, rows, SFT_SCHEMA, book)


def write_pair_rows(path: Path, rows: Iterable[MadeRow], book: Callable[[LeftOut], None]) -> RowCounts:
    """Write the rows that are trained on; ``book`` takes the others."""
    return _write(path, rows, PAIR_SCHEMA, book)


def write_pair_splits(
    paths: Mapping[SplitName, Path],
    rows: Iterable[MadeRow],
    split_of: Callable[[str], SplitName],
    book: Callable[[LeftOut], None],
) -> tuple[RowCounts, dict[SplitName, int]]:
    """Write each row to the file of its prompt's split; ``rows`` are read once, however many files there are.

    Returns the counts of all, and the rows of each split.
    """
    kept = _Kept(rows, book)
    with ExitStack() as stack:
        files = {split: stack.enter_context(_row_file(path, PAIR_SCHEMA)) for split, path in paths.items()}
        for row in kept:
            files[split_of(row["prompt"])].add(row)
    return kept.counts, {split: file.num_rows for split, file in files.items()}


def read_training_set(path: Path) -> pa.Table:
    """All rows of a training set. Raises DamagedError."""
    with reading(path):
        return pq.read_table(path)


def write_pair_table(path: Path, pairs: pa.Table) -> None:
    """Rows that were written as pairs before, without making Python objects of them."""
    with replacing(path) as unfinished:
        pq.write_table(pairs, unfinished, row_group_size=ROW_GROUP)


def _write(path: Path, rows: Iterable[MadeRow], schema: pa.Schema, book: Callable[[LeftOut], None]) -> RowCounts:
    kept = _Kept(rows, book)
    with _row_file(path, schema) as file:
        for row in kept:
            file.add(row)
    return kept.counts


class _Kept:
    """The rows that are trained on. Hands the others to ``book``, and counts all."""

    def __init__(self, rows: Iterable[MadeRow], book: Callable[[LeftOut], None]) -> None:
        self._rows, self._book = rows, book
        self._kept = self._left_out = self._cut = 0

    def __iter__(self) -> Iterator[TrainingRow]:
        for row in self._rows:
            if isinstance(row, LeftOut):
                self._left_out += 1
                self._book(row)
            else:
                self._kept += 1
                self._cut += row.get("cut", False)
                yield row

    @property
    def counts(self) -> RowCounts:
        return RowCounts(rows_in=self._kept + self._left_out, rows_out=self._kept, cut=self._cut)


@contextmanager
def _row_file(path: Path, schema: pa.Schema) -> Iterator[_RowFile]:
    """A file of rows that has its name once the context has ended without an error."""
    with replacing(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        file = _RowFile(writer, schema)
        yield file
        file.flush()


class _RowFile:
    """Writes rows in groups, and counts them. Columns that the schema does not have are not written."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._buffer: list[TrainingRow] = []
        self.num_rows = 0

    def add(self, row: TrainingRow) -> None:
        self.num_rows += 1
        self._buffer.append(row)
        if len(self._buffer) == ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=self._schema))
        self._buffer = []
