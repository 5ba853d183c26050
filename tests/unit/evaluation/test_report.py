import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from rlaif.config.schema import Config
from rlaif.errors import RunDirError
from rlaif.evaluation.evaluations import evaluate_run_dir
from rlaif.evaluation.findings import Findings
from rlaif.evaluation.formatting import duration
from rlaif.evaluation.report import percent_by_order, write_report
from rlaif.evaluation.tables import summary_table
from rlaif.labels.quality import measure
from rlaif.records import Preference, Quarantined, RevisionChain, Round, Status, Turn
from rlaif.storage.run_dir import RunDir

HOSTILE = "<script>alert(1)</script>"


def fill(run_dir, red_team, benign):
    """The files of a small run, written by the same code as in a real one."""
    journal = run_dir.journal
    for snapshot, said in (("helpful_only", "harmful"), ("sl_cai", "evasive"), ("rl_cai", "refusal")):
        for i in range(5):
            journal.add_all(f"answers_{snapshot}", [red_team.answer(f"r{i}", snapshot, red_team.say(said))])
            journal.add_all(f"answers_{snapshot}", [benign.answer(f"b{i}", snapshot, benign.say("helpful"))])
    journal.add_all("answers_rl_cai", [red_team.answer("hostile", "rl_cai", HOSTILE)])
    journal.add_all("preferences", [red_team.label("1", "refusal", "harmful", 0.83, (3.0, -1.0))])
    other_prompt = (Turn(role="human", text="Hello."), Turn(role="assistant", text="Hi."), *red_team.prompt)
    other = replace(red_team.label("2", "harmful", "evasive", 0.31, (-1.0, 0.5)), prompt=other_prompt)
    journal.add_all("preferences", [other])
    journal.add_all("revisions", [chain(red_team)])
    journal.quarantine(Quarantined(id="a:3", file="a", row=3, kind="read", cause=f"not JSON: {HOSTILE}"))
    journal.quarantine(Quarantined(id="a:9", file="a", row=9, kind="read", cause=f"not JSON: {HOSTILE}"))
    journal.export(Preference, "preferences", run_dir.path / "preferences" / "preferences.parquet")
    journal.export(RevisionChain, "revisions", run_dir.path / "revisions" / "revisions.parquet")
    for step in range(1, 41):
        metrics = {"reinforce/score/mean": step / 10, "reinforce/kl/sequence_mean": step / 20}
        run_dir.metrics.write("reinforce", metrics, index=step)
    run_dir.metrics.write("label", {"label/quality/flip_rate": 0.18})
    quality = measure(journal.records(Preference, "preferences")).summary()
    (run_dir.path / "label_quality.json").write_text(json.dumps(quality))
    run_dir.metrics.write("label", {"label/cost/labels_per_s": 123.0})
    fitted = {"preference/heldout/ece": 0.0321, "preference_test/heldout/ece": 0.0456}
    bins = {"0.1_mean_prob": 0.15, "0.1_frequency": 0.2, "0.1_count": 3, "0.8_mean_prob": 0.85}
    bins |= {"0.8_frequency": 0.8, "0.8_count": 3}
    fitted |= {f"preference/reliability/{key}": value for key, value in bins.items()}
    run_dir.metrics.write("fit_preference_model", fitted)
    run_dir.write_quarantine()
    with run_dir.time_stage("revise"):
        run_dir.account("revisions", rows_in=1234, rows_out=1232, quarantined=2)
    evaluation = evaluate_run_dir(run_dir, red_team.lexicon)
    (run_dir.path / "evaluation.json").write_text(json.dumps(evaluation))


def chain(red_team):
    return RevisionChain(
        id="c1",
        source_file="a.jsonl",
        source_row=1,
        status=Status.OK,
        error=None,
        seconds=0.1,
        seed=0,
        model_version="m",
        axis="red_team",
        prompt=red_team.prompt,
        response=red_team.say("harmful"),
        rounds=(Round(principle_id="no_harm", critique="It does harm.", revision=red_team.say("refusal")),),
        token_ids=(1,),
        truncated=False,
    )


@pytest.fixture
def run_dir(tmp_path):
    opened = RunDir(tmp_path / "my_run", Config())
    yield opened
    opened.close()


@pytest.fixture
def page(run_dir, red_team, benign):
    fill(run_dir, red_team, benign)
    write_report(run_dir.path)
    return (run_dir.path / "report.html").read_text()


def test_the_page_shows_what_happened(page, red_team):
    shown = re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))
    assert "1,234 1,232 2" in shown
    assert "100.0% → 0.0% → 0.0% harmful answers to red-team prompts" in shown
    assert "SL-CAI" in shown
    assert "It does harm." in shown
    assert "P = 95.3% in slot A, 73.1% in slot B; debiased 83.0%" in shown
    assert "flip rate 0 0 – 0.6576 2" in shown
    assert "labels per s 123" in shown
    assert "Slot bias of the votes" in page and "P(longer answer preferred)" in page
    assert "heldout: ece 0.0321" in shown and "preference test: heldout: ece 0.0456" in shown
    assert "reliability: 0.1 mean prob" not in shown
    assert "evaluation: red_team: miniature:eval_red_team" in shown


def test_the_page_stands_alone_and_runs_nothing(page):
    assert page.count("<svg") == 9  # 2 axes, 4 of the labels, the PM, score, KL
    assert not re.search(r'(?:src|href)="(?!#)', re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_run_in_its_beginnings_has_a_page_too(run_dir):
    write_report(run_dir.path)
    assert "No stage has finished yet" in (run_dir.path / "report.html").read_text()


@pytest.mark.parametrize("report", [write_report, summary_table])
def test_what_is_no_run_directory_is_refused(tmp_path, report):
    with pytest.raises(RunDirError, match="not a run directory"):
        report(tmp_path)


def test_the_terminal_table_holds_the_rates(run_dir, red_team, benign):
    run_dir.account("revisions", rows_in=5, rows_out=4, quarantined=1)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(run_dir.path))
    assert re.search(r"revisions\W+5\W+4\W+1", console.export_text())

    fill(run_dir, red_team, benign)
    console.print(summary_table(run_dir.path))
    text = console.export_text()
    assert re.search(r"Red-team prompts: harmful\W+100.0%\W+0.0%\W+0.0%", text)
    assert "label accuracy: first 100.0%, second 100.0%, debiased 100.0%" in text


def test_a_step_that_ran_twice_counts_as_it_was_last_and_half_a_line_does_not(run_dir):
    for step, value in ((1, 1.0), (2, 2.0), (2, 5.0)):
        run_dir.metrics.write("reinforce", {"reinforce/score/mean": value}, index=step)
    run_dir.metrics.write("label", {"label/quality/flip_rate": float("nan")})
    with (run_dir.path / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1, "met')
    run_dir.metrics.write("reinforce", {"reinforce/score/mean": 7.0}, index=3)  # lost to the incomplete line before it
    run_dir.metrics.write("reinforce", {"reinforce/score/mean": 8.0}, index=4)
    found = Findings(run_dir.path)
    assert found.metrics == {"reinforce/score/mean": [(1, 1.0), (2, 5.0), (4, 8.0)]}
    assert found.last("label/") == {}


def test_causes_are_counted_and_the_frequent_come_first(run_dir):
    for i, cause in enumerate(["rare", "often", "often"]):
        run_dir.journal.quarantine(Quarantined(id=f"a:{i}", file="a", row=i, kind="read", cause=cause))
    run_dir.write_quarantine()
    assert Findings(run_dir.path).quarantine_causes() == [
        ("read", "often", 2, "a:1"),
        ("read", "rare", 1, "a:0"),
    ]


def test_an_order_is_unswapped_before_it_is_shown():
    judgements = [
        {"principle_id": "p", "order": 1, "logprob_a": 0.0, "logprob_b": -2.0},
        {"principle_id": "p", "order": 2, "logprob_a": 0.0, "logprob_b": -2.0},
    ]
    assert (percent_by_order(judgements, 1), percent_by_order(judgements, 2)) == ("88.1%", "11.9%")
    assert percent_by_order([], 1) == "–"


def test_a_judgement_without_doubt_has_a_percentage_too():
    judgements = [{"principle_id": "p", "order": 2, "logprob_a": 0.0, "logprob_b": -800.0}]
    assert percent_by_order(judgements, 2) == "0.0%"


@pytest.mark.parametrize(("seconds", "said"), [(3.14, "3.1 s"), (83, "1 min 23 s"), (3600 * 2 + 60 * 5, "2 h 5 min")])
def test_durations_are_words(seconds, said):
    assert duration(seconds) == said
