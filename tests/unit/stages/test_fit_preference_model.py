"""The training sets of the preference model: split by prompt; what is not trained on is accounted for."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlaif.config.source import Source
from rlaif.records import Turn
from rlaif.stages import fit_preference_model as stage
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir
from rlaif.training.training_sets import PAIR_SCHEMA
from tests.conftest import NUM_HELPFUL
from tests.unit.prompting.chat_tokenizers import GEMMA, with_template
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


def test_human_pairs_that_cannot_be_rendered_are_left_out_with_the_reason(run, tmp_path):
    """Neighbours of one role are joined, because many templates require roles to alternate."""
    hello, hi = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}
    prompts = [[hello], [hi, hello], [hello, hello]]
    rows = [{"prompt": prompt, "chosen": "yes", "rejected": "no"} for prompt in prompts]
    rows += [{"prompt": "Hello", "chosen": f"<think>hm{end}", "rejected": "no"} for end in ("</think>sure", "")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with_template(GEMMA).save_pretrained(tmp_path / "base")
    config = run.config.model_copy(
        update={
            "dialogue_format": "chat_template",
            "data": run.config.data.model_copy(update={"helpful_pairs": Source(path=str(tmp_path / "pairs.jsonl"))}),
            "supervision": run.config.supervision.model_copy(update={"base_model": str(tmp_path / "base")}),
        }
    )
    stage._write_fit(replace(run, config=config))
    assert sum(written(run, split)["axis"].to_pylist().count("helpful") for split in SPLITS) == 3
    left_out = [row for row in run.run_dir.journal.quarantine_entries() if "its label" not in row.cause]
    causes = {row.row: row.cause for row in left_out}
    assert set(causes) == {2, 5} and causes[5] == "an answer is only a thought"
    assert "refuses the roles assistant, user: TemplateError: Conversation roles must alternate" in causes[2]


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


def test_pairs_in_reserve_that_say_nothing_are_in_the_account(run, tmp_path):
    values = run.config.model_dump()
    pairs = [{"prompt": f"Q{i}", "chosen": "yes", "rejected": "no" if i % 4 else "yes"} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    values["data"]["helpful_pairs"] = str(tmp_path / "pairs.jsonl")
    values["preference_model"] |= {"helpful_per_harmless": 0.2}
    values["preference_model"]["refresh"] |= {"every": 1, "comparisons": 40}
    values["reinforcement"] |= {"batches": 4}
    stage._write_fit(replace(run, config=type(run.config).model_validate(values)))
    counts = run.run_dir.rows("reserve_pairs")
    assert counts["rows_out"] == written(run, "reserve").num_rows > 0 and counts["quarantined"] > 0
    causes = {row.cause for row in run.run_dir.journal.quarantine_entries() if row.kind == "reserve_pairs"}
    assert causes == {"both answers are the same"}
