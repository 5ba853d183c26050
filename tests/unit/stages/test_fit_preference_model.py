"""The training sets of the preference model: split by prompt; what is not trained on is accounted for."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlaif.records import Turn
from rlaif.stages import fit_preference_model as stage
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir
from rlaif.training.training_sets import PAIR_SCHEMA
from tests.conftest import NUM_HELPFUL
from tests.unit.training.test_training_sets import label

SPLITS = ("fit", "test_fit", "heldout")


def about(made, number: int):
    """A label about a prompt of its own."""
    return replace(made, prompt=(Turn(role="human", text=f"Prompt {number}"),))


@pytest.fixture
def run(tiny_config):
    preference_model = tiny_config.preference_model.model_copy(update={"test_split": True, "heldout_fraction": 0.3})
    config = tiny_config.model_copy(update={"preference_model": preference_model})
    run_dir = RunDir(Path(config.run_dir), config)
    run_dir.journal.add_all("preferences", [about(label(f"f:{i}", i / 40 if i % 9 else None), i) for i in range(40)])
    yield Run(
        config=config,
        constitution=None,
        run_dir=run_dir,
        paths={},
        pools=None,
        trainers=None,
        progress=Silent(),
    )
    run_dir.close()


def written(run, name: str):
    return pq.read_table(run.run_dir.training_set(f"preference_{name}"))


def test_each_split_holds_the_pairs_of_its_prompts(run):
    num_rows = stage._write_fit(run)
    tables = {split: written(run, split) for split in SPLITS}
    assert {split: table.num_rows for split, table in tables.items()} == num_rows
    splits = stage.splits_of(run.config)
    for split, table in tables.items():
        assert table.schema == PAIR_SCHEMA
        assert {splits.of(prompt) for prompt in table["prompt"].to_pylist()} <= {split}
    axes = Counter(axis for table in tables.values() for axis in table["axis"].to_pylist())
    assert axes == {"harmless": 35, "helpful": min(NUM_HELPFUL, round(0.74 * 35))}


def test_labels_that_are_no_numbers_are_in_the_account(run):
    stage._write_fit(run)
    counts = run.run_dir.rows("preference_pairs")
    assert counts["rows_in"] == counts["rows_out"] + counts["quarantined"] and counts["quarantined"] == 5
    causes = {row.cause for row in run.run_dir.journal.quarantine_entries() if row.kind == "preference_pairs"}
    assert causes == {"its label is invalid"}


def test_a_run_with_refreshes_keeps_human_pairs_in_reserve(run):
    values = run.config.model_dump()
    values["preference_model"] |= {"helpful_per_harmless": 0.1}
    values["preference_model"]["refresh"] |= {"every": 1, "comparisons": 20}
    values["reinforcement"] |= {"batches": 4}
    refreshed = replace(run, config=type(run.config).model_validate(values))
    stage._write_fit(refreshed)
    fitted, reserve = (set(written(run, name)["id"].to_pylist()) for name in ("fit", "reserve"))
    assert reserve and reserve.isdisjoint(fitted)
    assert {stage.splits_of(run.config).of(prompt) for prompt in written(run, "reserve")["prompt"].to_pylist()} == {
        "fit"
    }
