"""The tables of a run: parquet copies of its rows, for others to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.records import Comparison, Preference, Provenance, RevisionChain, Rollout
from rlaif.storage.damage import reading

if TYPE_CHECKING:
    import pyarrow as pa

#: Kind of rows -> its table below the run directory, and the records in it.
EXPORTS: dict[str, tuple[str, type[Provenance]]] = {
    "revisions": ("revisions/revisions.parquet", RevisionChain),
    "comparisons": ("comparisons/comparisons.parquet", Comparison),
    "preferences": ("preferences/preferences.parquet", Preference),
    "rollouts": ("rollouts/rollouts.parquet", Rollout),
    "refresh_comparisons": ("comparisons/refresh.parquet", Comparison),
    "refresh_preferences": ("preferences/refresh.parquet", Preference),
}


def tables_in(run_dir: Path, directory: str) -> list[Path]:
    """The tables that a run has written in ``directory`` (``preferences``...); other files there are not its own."""
    paths = (run_dir / name for name, _ in EXPORTS.values() if name.startswith(f"{directory}/"))
    return [path for path in paths if path.is_file()]


def read_schema(path: Path, columns: Sequence[str] = ()) -> pa.Schema:
    """The columns of a table. Raises DamagedError, also where one of ``columns`` is missing."""
    import pyarrow.parquet as pq

    with reading(path):
        schema = pq.read_schema(path)
        if missing := [name for name in columns if name not in schema.names]:
            raise ValueError(f"no column `{missing[0]}`")
        return schema


def read_batches(path: Path, batch_rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a table, ``batch_rows`` at a time. Raises DamagedError, also where a column is missing."""
    import pyarrow.parquet as pq

    read_schema(path, columns or ())
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=batch_rows, columns=columns)
        while True:
            with reading(path):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
