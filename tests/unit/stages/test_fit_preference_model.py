"""The training sets of the preference model: split by row, from one reading of every source."""

from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq
import pytest

from rlaif.data.pairs import read_pairs
from rlaif.records import Preference
from rlaif.stages import fit_preference_model as stage
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir
from rlaif.training.training_sets import PAIR_SCHEMA, PairBuilder, ai_probs
from tests.unit.training.test_training_sets import label

SPLITS = ("fit", "test_fit", "heldout")


@pytest.fixture
def run(tiny_config):
    preference_model = tiny_config.preference_model.model_copy(update={"test_split": True, "heldout_fraction": 0.3})
    config = tiny_config.model_copy(update={"preference_model": preference_model})
    run_dir = RunDir(Path(config.run_dir), config)
    run_dir.journal.add_all("preferences", [label(f"f:{i}", i / 40 if i % 9 else None) for i in range(40)])
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


def test_sources_are_read_and_made_into_rows_once(run):
    with (
        mock.patch.object(stage, "read_pairs", wraps=read_pairs) as reads,
        mock.patch.object(PairBuilder, "_row", autospec=True, side_effect=PairBuilder._row) as made,
    ):
        stage._write_fit(run)
    assert reads.call_count == 1
    written = [pq.read_metadata(run.run_dir.training_set(f"preference_{split}")).num_rows for split in SPLITS]
    assert made.call_count == sum(written)


def test_each_split_holds_its_rows_in_order(run):
    labels, num_heldout = stage._write_fit(run)
    assert (labels.rows_in, labels.rows_out) == (40, 35)
    builder, journal = stage.pair_builder(run), run.run_dir.journal
    probs = ai_probs(journal.records(Preference, "preferences"), False, run.config.seed)
    pairs = read_pairs(run.config.data.helpful_pairs, run.quarantine)
    rows = list(builder.mix(builder.from_labels(journal.records(Preference, "preferences"), probs), pairs, len(probs)))
    assert {row["axis"] for row in rows} == {"harmless", "helpful"}
    for split in SPLITS:
        table = pq.read_table(run.run_dir.training_set(f"preference_{split}"))
        assert table.schema == PAIR_SCHEMA
        assert table["id"].to_pylist() == [row["id"] for row in rows if builder.split_of(row) == split] != []
    assert num_heldout == table.num_rows
