"""Tables whose columns or values are not those of their records: every reader says so, in the same words."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.config.schema import Labelling
from rlaif.errors import DataError
from rlaif.evaluation.audit.sample import draw_pairs
from rlaif.evaluation.findings import Findings
from rlaif.labels.reaggregation import reaggregate_run
from rlaif.records import Judgement, Preference
from rlaif.storage.damage import DamagedError
from rlaif.storage.record_schema import arrow_schema, from_json, to_json, to_row
from rlaif.storage.tables import read_batches
from tests.surfaces import preference

JUDGED = tuple(Judgement(principle_id="p", order=order, logprob_a=-0.1, logprob_b=-3.0) for order in (1, 2))
ROW = dict(to_row(preference(JUDGED, Labelling())))
READERS: dict[str, Callable[[Path], object]] = {
    "rows": lambda run: [*read_batches(run / "preferences" / "preferences.parquet", 2)],
    "histogram": lambda run: Findings(run).label_histogram(),
    "report": lambda run: Findings(run).records("preferences", 9),
    "audit": lambda run: draw_pairs(run, 3, 0, b"secret"),
    "reaggregate": lambda run: reaggregate_run(run, Labelling(), str(run.parent / "again.parquet")),
}
HARMS: dict[str, tuple[str, object, str]] = {  # column, what is in its third row, what is said of it
    "nan": ("prob", math.nan, "row 3, prob: must be at most 1"),
    "infinity": ("prob", math.inf, "row 3, prob: must be at most 1"),
    "negative": ("prob", -1.0, "row 3, prob: must be at least 0"),
    "large": ("prob", 2.0, "row 3, prob: must be at most 1"),
    "no list": ("judgements", None, "row 3, judgements: must not be null"),
    "no status": ("status", None, "row 3, status: must not be null"),
    "another status": ("status", "good", "row 3, status: "),
    "no number": (
        "judgements",
        [{**ROW["judgements"][0], "logprob_a": math.nan}],
        "row 3, judgements.0.logprob_a is nan",
    ),
    "a third order": ("judgements", [{**ROW["judgements"][0], "order": 3}], "row 3, judgements.0.order: "),
}


def written(tmp_path: Path, table: pa.Table) -> Path:
    run = tmp_path / "run"
    (run / "preferences").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    pq.write_table(table, run / "preferences" / "preferences.parquet")
    return run


def table_of(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([*rows], schema=arrow_schema(Preference))


def refused(run: Path, reader: str, said: str) -> None:
    with pytest.raises(DamagedError) as refusal:
        READERS[reader](run)
    message = str(refusal.value)
    assert f"{run}/preferences/preferences.parquet: is damaged, or of another version: {said}" in message
    assert message.endswith(f"rlaif doctor {run} mends it") and "\n" not in message
    assert not (run.parent / "again.parquet").exists()


@pytest.mark.parametrize("reader", READERS)
def test_a_table_of_the_records_is_read(tmp_path: Path, reader: str) -> None:
    READERS[reader](written(tmp_path, table_of(ROW)))


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("reader", READERS)
def test_a_value_that_no_record_has_is_refused_with_its_row(tmp_path: Path, reader: str, harm: str) -> None:
    column, value, said = HARMS[harm]
    run = written(tmp_path, table_of(ROW, ROW, {**ROW, column: value}))
    if reader == "histogram" and column != "prob":
        READERS[reader](run)  # it looks at nothing else
    else:
        refused(run, reader, said)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("column", ["prob", "aggregation", "judgements"])
def test_a_column_of_another_kind_is_refused(tmp_path: Path, reader: str, column: str) -> None:
    table = table_of(ROW)
    kinds = {
        f"no column `{column}`": table.drop_columns([column]),
        f"column `{column}` is of another type": table.set_column(
            table.schema.get_field_index(column), column, pa.array([7])
        ),
        f"column `{column}` is there twice": table.append_column(column, table[column]),
    }
    for number, (said, harmed) in enumerate(kinds.items()):
        run = written(tmp_path / str(number), harmed)
        is_read = {"histogram": ["prob"], "audit": ["prob", "judgements"]}.get(reader, [column])
        if column in is_read:
            refused(run, reader, said)


def test_columns_of_others_are_kept(tmp_path: Path) -> None:
    table = table_of(ROW).append_column("note", pa.array(["mine"]))
    reaggregate_run(written(tmp_path, table), Labelling(), str(tmp_path / "again.parquet"))
    assert pq.read_table(tmp_path / "again.parquet")["note"].to_pylist() == ["mine"]


@pytest.mark.parametrize(("old", "new"), [(b'"logprob_a":-0.1', b'"logprob_a":NaN'), (b'"gold":null', b'"gold":2.0')])
def test_the_journal_refuses_what_its_tables_may_not_hold(old: bytes, new: bytes) -> None:
    stored = to_json(preference(JUDGED, Labelling()))
    assert old in stored
    with pytest.raises(DataError, match="cannot be read"):
        from_json(Preference, stored.replace(old, new))
