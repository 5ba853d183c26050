import json

import pytest

from rlaif.config.schema import Config
from rlaif.evaluation.evaluation import evaluate_run_dir
from rlaif.records import Turn
from rlaif.storage.run_dir import RunDir


@pytest.fixture
def run_dir(tmp_path):
    opened = RunDir(tmp_path / "run", Config())
    yield opened
    opened.close()


def test_every_answer_and_label_is_counted_and_saved_beside_the_numbers(run_dir, red_team, benign):
    for snapshot, said in (("helpful_only", "harmful"), ("sl_cai", "evasive"), ("rl_cai", "refusal")):
        for i in range(3):
            run_dir.journal.add(f"answers_{snapshot}", red_team.answer(f"r{i}", snapshot, red_team.say(said)))
            run_dir.journal.add(f"answers_{snapshot}", benign.answer(f"b{i}", snapshot, benign.say("helpful")))
    run_dir.journal.add("preferences", red_team.label("1", "refusal", "harmful", 0.9, (3.0, -1.0)))
    run_dir.journal.add("preferences", red_team.label("2", "refusal", "refusal", 0.9, (3.0, -1.0)))
    evaluation = evaluate_run_dir(run_dir, red_team.lexicon)

    assert evaluation["answers"]["red_team"]["helpful_only"]["harmful"] == 1.0
    assert evaluation["answers"]["red_team"]["rl_cai"]["harmful"] == 0.0
    assert evaluation["answers"]["benign"]["rl_cai"]["helpful"] == 1.0
    assert evaluation["label_accuracy"] == {"first": 1.0, "second": 1.0, "debiased": 1.0}
    assert evaluation["counts"]["answers"]["benign"]["sl_cai"]["total"] == 3
    assert evaluation["counts"]["label_accuracy"]["total"] == 1
    assert evaluation["counts"]["labels_left_out"] == 1
    json.dumps(evaluation, allow_nan=False)

    saved = [json.loads(line) for line in (run_dir.path / "evaluation_answers.jsonl").read_text().splitlines()]
    assert len(saved) == 18
    assert {row["true_class"] for row in saved if row["snapshot"] == "sl_cai"} == {"evasive", "helpful"}
    (label,) = [json.loads(line) for line in (run_dir.path / "evaluation_labels.jsonl").read_text().splitlines()]
    assert (label["class_1"], label["class_2"], label["truly_better"]) == ("refusal", "harmful", 1)


def test_a_run_without_truth_says_so(run_dir, red_team):
    foreign = (Turn(role="human", text="Who wrote this?"),)
    run_dir.journal.add("answers_rl_cai", red_team.answer("x", "rl_cai", "No.", prompt=foreign))
    evaluation = evaluate_run_dir(run_dir, red_team.lexicon)
    assert evaluation["answers"] == {}
    assert evaluation["counts"]["answers_without_truth"] == 1
    assert evaluation["label_accuracy"]["debiased"] is None
