"""Labels computed again from stored log-probabilities, without a model: another aggregation, floor or clamp."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.config.schema import Labelling
from rlaif.constitution.principles import Priority
from rlaif.errors import DataError, LossError, RunDirError
from rlaif.places.urls import is_url
from rlaif.places.writing import arriving
from rlaif.records import Judgement, Status
from rlaif.storage.damage import check_places, damaged
from rlaif.storage.stored_run import StoredRun
from rlaif.storage.tables import read_batches, read_schema
from rlaif.tasks.labelling import NO_PRIORITIES, verdict

REWRITE_ROWS = 5_000
READ_COLUMNS = ["status", "error", "prob", "aggregation", "judgements"]
#: Only these statuses depend on the aggregation; the others come from the model or the pair, and stay.
REDERIVED_STATUSES = (Status.OK, Status.TIE, Status.INVALID, Status.REFUSED)


def reaggregate_run(run_dir: Path, settings: Labelling, out: str) -> tuple[int, int]:
    """Write the labels of ``run_dir`` under ``settings`` to ``out``, a path or URL of a parquet file; returns (their
    number, how many changed).

    Raises RunDirError if there are none, LossError if none is usable under ``settings``, DataError if ``out`` is the
    run's own file or cannot be written. Each leaves ``out`` as it was.
    """
    check_places(run_dir)
    stored = run_dir / "preferences" / "preferences.parquet"
    if not stored.is_file():
        raise RunDirError(
            f"{run_dir}: has no labels ({stored.relative_to(run_dir)} is missing); if the run has "
            f"made some, rlaif doctor {run_dir} writes them again"
        )
    if not is_url(out) and Path(out).resolve().is_relative_to(run_dir.resolve()):
        raise DataError(f"{out}: is in the run directory, which holds the run's own labels; choose another place")
    return _rewrite(stored, settings, _priorities(run_dir) if settings.conflicts == "priority" else NO_PRIORITIES, out)


def _priorities(run_dir: Path) -> Mapping[str, Priority]:
    """Those of the constitution that the run last used."""
    run = StoredRun.open(run_dir)
    constitution = run.constitution()
    run.close()
    if constitution is None:
        raise damaged(run_dir / "constitution.json", "is missing")
    return constitution.priorities


def _rewrite(stored: Path, settings: Labelling, priorities: Mapping[str, Priority], out: str) -> tuple[int, int]:
    num = num_changed = 0
    unusable = Counter[str]()
    schema = read_schema(stored, READ_COLUMNS)
    with (
        arriving(out) as unfinished,
        pq.ParquetWriter(unfinished, schema) as writer,
    ):
        for batch in read_batches(stored, REWRITE_ROWS):
            old = batch.select(READ_COLUMNS).to_pylist()
            new = [_reaggregated(row, settings, priorities) for row in old]
            num += len(old)
            num_changed += sum(a["prob"] != b["prob"] for a, b in zip(old, new, strict=True))
            unusable.update(f"{row['status']}: {row['error']}" for row in new if row["prob"] is None)
            writer.write_batch(_with(batch, new))
        _check_usable(stored, num, unusable)
    return num, num_changed


def _check_usable(stored: Path, num: int, unusable: Counter[str]) -> None:
    if not num:
        raise RunDirError(f"{stored}: holds no labels")
    if unusable.total() == num:
        (cause, number), *_ = unusable.most_common(1)
        raise LossError(f"{stored}: 0 of {num} labels are usable; the most frequent cause ({number} labels): {cause}")


def _reaggregated(row: Mapping[str, Any], settings: Labelling, priorities: Mapping[str, Priority]) -> Mapping[str, Any]:
    judgements = [Judgement(**judgement) for judgement in row["judgements"]]
    never_judged = not judgements and row["status"] != Status.TIE
    if never_judged or row["status"] not in REDERIVED_STATUSES:
        return row
    status, prob, error = verdict(judgements, settings, priorities)
    return {**row, "status": str(status), "prob": prob, "error": error, "aggregation": settings.aggregation}


def _with(batch: pa.RecordBatch, rows: list[Mapping[str, Any]]) -> pa.RecordBatch:
    """``batch`` with the columns that depend on the aggregation taken from ``rows``."""
    for name in ("status", "error", "prob", "aggregation"):
        index = batch.schema.get_field_index(name)
        column = pa.array([row[name] for row in rows], type=batch.schema.field(index).type)
        batch = batch.set_column(index, batch.schema.field(index), column)
    return batch
