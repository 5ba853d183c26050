"""The tables of a run: parquet copies of its rows, for others to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.records import Comparison, Preference, Provenance, RevisionChain, Rollout
from rlaif.storage.damage import check_places, reading
from rlaif.storage.record_schema import arrow_schema, check_column

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
    """The tables that a run has written in ``directory`` (``preferences``...); other files there are not its own.

    Raises DamagedError where there is something else in the place of a run's file."""
    check_places(run_dir)
    paths = (run_dir / name for name, _ in EXPORTS.values() if name.startswith(f"{directory}/"))
    return [path for path in paths if path.is_file()]


def read_schema(path: Path, columns: Sequence[str]) -> pa.Schema:
    """The columns of a table. Raises DamagedError, also where one of ``columns`` is missing, is there twice, or is of
    another type than the field of its records."""
    import pyarrow.parquet as pq

    with reading(path):
        schema = pq.read_schema(path)
        expected, counts = arrow_schema(_record_type(path)), Counter(schema.names)
        for name in columns:
            if counts[name] != 1:
                raise ValueError(f"column `{name}` is there twice" if counts[name] else f"no column `{name}`")
            if schema.field(name).type != expected.field(name).type:
                raise ValueError(f"column `{name}` is of another type")
        return schema


def read_batches(path: Path, batch_rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a table, ``batch_rows`` at a time, with ``columns`` or all that it has.

    Raises DamagedError, also where a column or a value is not as the records say, which is what readers go by.
    """
    import pyarrow.parquet as pq

    record_type = _record_type(path)
    checked = columns or arrow_schema(record_type).names
    read_schema(path, checked)
    first_row = 1
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=batch_rows, columns=columns)
        while True:
            with reading(path):
                batch = next(batches, None)
                if batch is None:
                    return
                for name in checked:
                    check_column(record_type, name, batch[name], first_row)
            first_row += batch.num_rows
            yield batch


def _record_type(path: Path) -> type[Provenance]:
    return next(record_type for name, record_type in EXPORTS.values() if path.match(name))
