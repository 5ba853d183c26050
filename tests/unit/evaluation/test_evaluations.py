import json

import pytest

from rlaif.config.schema import Config
from rlaif.evaluation import evaluations, report, tables
from rlaif.evaluation.answers import ANSWER_CLASSES
from rlaif.evaluation.evaluations import evaluate_run_dir
from rlaif.evaluation.evaluator import Evaluator, Headline, Measurement
from rlaif.evaluation.formatting import number
from rlaif.evaluation.labels import LABEL_ACCURACY
from rlaif.evaluation.section import ReportSection, Table
from rlaif.records import Answer, Turn
from rlaif.storage.run_dir import RunDir


@pytest.fixture
def run_dir(tmp_path):
    opened = RunDir(tmp_path / "run", Config())
    yield opened
    opened.close()


def test_every_answer_and_label_is_counted_and_saved_beside_the_numbers(run_dir, red_team, benign):
    for snapshot, said in (("helpful_only", "harmful"), ("sl_cai", "evasive"), ("rl_cai", "refusal")):
        for i in range(3):
            run_dir.journal.add_all(f"answers_{snapshot}", [red_team.answer(f"r{i}", snapshot, red_team.say(said))])
            run_dir.journal.add_all(f"answers_{snapshot}", [benign.answer(f"b{i}", snapshot, benign.say("helpful"))])
    run_dir.journal.add_all("preferences", [red_team.label("1", "refusal", "harmful", 0.9, (3.0, -1.0))])
    run_dir.journal.add_all("preferences", [red_team.label("2", "refusal", "refusal", 0.9, (3.0, -1.0))])
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
    run_dir.journal.add_all("answers_rl_cai", [red_team.answer("x", "rl_cai", "No.", prompt=foreign)])
    evaluation = evaluate_run_dir(run_dir, red_team.lexicon)
    assert evaluation["answers"] == {}
    assert evaluation["counts"]["answers_without_truth"] == 1
    assert evaluation["label_accuracy"]["debiased"] is None


# ---------------------------------------------------------------------------------------------- one row of the table
def _measure_length(run_dir, lexicon):
    lengths = [len(answer.text) for answer in run_dir.journal.records(Answer, "answers_rl_cai")]
    mean = sum(lengths) / len(lengths)
    return Measurement(results={"answer_length": mean}, counts={"answer_length": len(lengths)})


def _length_section(findings):
    if "answer_length" not in findings.evaluation:
        return None
    table = Table(header=["snapshot", "characters"], rows=[["<RL>", number(findings.evaluation["answer_length"])]])
    return ReportSection(title="How long the answers are", link="Lengths", blocks=[table])


LENGTH = Evaluator(
    name="lengths",
    measure=_measure_length,
    section=_length_section,
    headlines=lambda evaluation: [Headline(value="a headline", title="of lengths", note="short")],
    remarks=lambda evaluation: ["a remark on lengths"],
)


def test_one_row_of_the_table_adds_a_whole_evaluator(run_dir, red_team, monkeypatch):
    for module in (evaluations, report, tables):
        monkeypatch.setattr(module, "EVALUATORS", (ANSWER_CLASSES, LABEL_ACCURACY, LENGTH))
    for id, text in (("a", red_team.say("refusal")), ("b", red_team.say("evasive"))):
        run_dir.journal.add_all("answers_rl_cai", [red_team.answer(id, "rl_cai", text)])
    evaluations.write_evaluation(run_dir, red_team.lexicon)
    written = json.loads((run_dir.path / "evaluation.json").read_text())
    assert list(written) == ["answers", "label_accuracy", "label_calibration", "answer_length", "counts", "intervals"]
    assert written["counts"]["answer_length"] == 2

    report.write_report(run_dir.path)
    page = (run_dir.path / "report.html").read_text()
    assert '<a href="#lengths">Lengths</a>' in page and '<h2 id="lengths">How long the answers are</h2>' in page
    assert f'<td>&lt;RL&gt;</td><td class="n">{number(written["answer_length"])}</td>' in page
    assert "<b>a headline</b><span>of lengths</span>" in page
    assert "a remark on lengths" in tables.summary_table(run_dir.path).caption


def test_two_evaluators_must_not_write_the_same_key(run_dir, red_team, monkeypatch):
    monkeypatch.setattr(evaluations, "EVALUATORS", (ANSWER_CLASSES, ANSWER_CLASSES))
    with pytest.raises(AssertionError, match="same key"):
        evaluate_run_dir(run_dir, red_team.lexicon)
