"""Labels computed again from what a run stored."""

import json
import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cli.__main__ import main
from rlaif.constitution.principles import load_constitution
from rlaif.evaluation.findings import Findings

NUM_PAIRS = 3


def main_of(*arguments, code=0):
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    assert (leaving.value.code or 0) == code


@pytest.fixture
def labelled(tiny_world, tmp_path):
    rows = [{"prompt": f"q{i}", "answer_1": "yes", "answer_2": "no"} for i in range(NUM_PAIRS)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = ["labeller.engine=scripted", "--model", tiny_world["feedback"], "--in-process"]
    main_of("label", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "run"), *chosen)
    return tmp_path / "run"


def test_priorities_decide_labels_that_are_computed_again(labelled, tmp_path):
    """The run's own principles, and its constitution.json, are enough."""
    table, out = pq.read_table(labelled / "preferences" / "preferences.parquet"), tmp_path / "decided.parquet"
    safety, helpfulness = _principle("harm_avoidance"), _principle("helpfulness")
    looks = [
        {"principle_id": id, "order": order, "logprob_a": math.log(p), "logprob_b": math.log(1 - p), "rationale": None}
        for id, probs in ((safety, (0.6, 0.4)), (helpfulness, (0.1, 0.9)))
        for order, p in zip((1, 2), probs, strict=True)
    ]
    column = pa.array([looks] * NUM_PAIRS, type=table.schema.field("judgements").type)
    table = table.set_column(table.schema.get_field_index("judgements"), "judgements", column)
    pq.write_table(table, labelled / "preferences" / "preferences.parquet")
    settings = ["labelling.principles=2", "labelling.aggregation=prob_mean"]
    for how, prob in (("mean", 0.35), ("priority", 0.6)):
        main_of("reaggregate", str(labelled), "--out", str(out), *settings, f"labelling.conflicts={how}")
        assert pq.read_table(out)["prob"].to_pylist() == [pytest.approx(prob)] * NUM_PAIRS


def test_labels_none_of_which_is_usable_are_no_success(labelled, tmp_path, capsys):
    out = tmp_path / "again.parquet"
    main_of("reaggregate", str(labelled), "--out", str(out), "labelling.min_letter_mass=1.0", code=1)
    assert "0 of 3 labels are usable; the most frequent cause (1 labels): invalid: principle" in capsys.readouterr().err
    stored = labelled / "preferences" / "preferences.parquet"
    pq.write_table(pq.read_table(stored).slice(0, 0), stored)
    main_of("reaggregate", str(labelled), "--out", str(out), code=2)
    assert "preferences.parquet: holds no labels" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def _principle(category):
    principles = load_constitution("sixteen_principles").for_comparison
    return next(principle.id for principle in principles if principle.category == category)


def test_other_tables_in_a_run_directory_are_not_its_labels(labelled, tmp_path, capsys):
    """None is written there, and one that somebody has put there is not counted."""
    for place in ("preferences/logit.parquet", "preferences/preferences.parquet", "journal.sqlite"):
        main_of("reaggregate", str(labelled), "--out", str(labelled / place), code=2)
        assert "is in the run directory, which holds the run's own labels" in capsys.readouterr().err
    before = Findings(labelled).label_histogram()
    shutil.copy(labelled / "preferences" / "preferences.parquet", labelled / "preferences" / "logit.parquet")
    assert Findings(labelled).label_histogram() == before
    main_of("audit", "export", str(labelled), "--out", str(tmp_path / "audit"))
    assert f"of {sum(before)} labels drawn" in capsys.readouterr().out
