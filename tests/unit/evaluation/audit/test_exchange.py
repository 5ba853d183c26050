import csv
import io
import json
import re
import stat

import pytest
from rich.console import Console

from rlaif.config.schema import Config
from rlaif.errors import DataError
from rlaif.evaluation.audit.exchange import KEY, SECRET, export_audit, import_audit
from rlaif.evaluation.audit.presentation import audit_lines, audit_table
from rlaif.evaluation.findings import Findings
from rlaif.evaluation.report import write_report
from rlaif.storage.run_dir import RunDir


@pytest.fixture
def run_dir(labels_dir, many_labels):
    return labels_dir("run", many_labels)


def judge(out, says):
    """Fill a sheet: ``says`` maps (left, right) texts and the row's index to a verdict."""
    with (out / "audit.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        row["verdict"] = says(row["answer_left"], row["answer_right"], index)
    path = out / "filled.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return path


def prefers(answer):
    return lambda left, right, index: "left" if left == answer else "right"


def test_verdicts_find_their_answers_on_whichever_side_they_stood(run_dir, red_team, tmp_path):
    key = export_audit(run_dir, str(tmp_path / "out"), 50, seed=3)
    assert {row.answer_1 for row in key.rows} == {"left", "right"}
    # Every label's answer_1 is the refusal, so a judge who always prefers refusals always chooses answer_1.
    audit = import_audit(run_dir, judge(tmp_path / "out", prefers(red_team.say("refusal"))))
    assert {pair.verdict for pair in audit.pairs} == {"answer_1"}
    share = sum(pair.prob > 0.5 for pair in audit.pairs) / 50
    assert audit.agreement.judged.value == pytest.approx(share)
    assert audit.agreement.all_labels.value == pytest.approx(0.9)  # 60 + 30 of 100 labels prefer answer_1


def test_the_opposite_judge_agrees_on_the_rest(run_dir, red_team, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 50, seed=3)
    audit = import_audit(run_dir, judge(tmp_path / "out", prefers(red_team.say("harmful"))))
    assert audit.agreement.all_labels.value == pytest.approx(0.1)


def test_what_is_written_holds_every_verdict_and_the_metrics(run_dir, red_team, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 40, seed=0)
    good = red_team.say("refusal")
    path = judge(
        tmp_path / "out", lambda left, right, i: "" if i < 4 else "tie" if i < 8 else prefers(good)(left, right, i)
    )
    audit = import_audit(run_dir, path)
    written = json.loads((run_dir / "audit.json").read_text())
    assert (written["num_labels"], written["num_sampled"], written["agreement"]["num_judged"]) == (100, 40, 36)
    assert sum(pair["verdict"] == "tie" for pair in written["pairs"]) == 4
    assert written["agreement"]["judged"]["value"] == audit.agreement.judged.value
    assert not (run_dir / "metrics.jsonl").exists(), "the run alone writes it"
    (run_dir / "config.yaml").touch()
    metrics = Findings(run_dir).last("label/audit/")
    assert metrics["label/audit/num_judged"] == 36
    assert metrics["label/audit/agreement_all_labels"] == audit.agreement.all_labels.value


def test_the_same_seed_writes_the_same_files_and_another_seed_others(run_dir, tmp_path):
    files = {}
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        export_audit(run_dir, str(tmp_path / name), 30, seed)
        files[name] = [(tmp_path / name / file).read_bytes() for file in ("audit.csv", "audit.html")]
        files[name].append((run_dir / KEY).read_bytes())
    assert files["one"] == files["again"]
    assert all(a != b for a, b in zip(files["one"], files["two"], strict=True))


def test_another_run_with_the_same_labels_has_other_sides_and_ids(labels_dir, many_labels, tmp_path):
    keys = []
    for name in ("one", "two"):
        keys.append(export_audit(labels_dir(name, many_labels), str(tmp_path / name), 40, seed=0))
    sides = [{row.label_id: row.answer_1 for row in key.rows} for key in keys]
    assert sides[0].keys() == sides[1].keys()
    assert sides[0] != sides[1]
    assert not {row.id for row in keys[0].rows} & {row.id for row in keys[1].rows}


def test_what_undoes_the_sides_is_the_user_s_alone(run_dir, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)
    for file in (KEY, SECRET):
        assert stat.S_IMODE((run_dir / file).stat().st_mode) == 0o600
    secret = (run_dir / SECRET).read_text().strip()
    assert len(bytes.fromhex(secret)) == 32
    assert all(secret not in file.read_text(encoding="utf-8-sig") for file in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("content", ["", "not hex", "é", "12"])
def test_a_broken_secret_is_named(run_dir, tmp_path, content):
    (run_dir / SECRET).parent.mkdir()
    (run_dir / SECRET).write_text(content)
    with pytest.raises(DataError, match=r"audit/secret: .*delete it"):
        export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)


def test_a_sheet_that_went_out_before_there_was_a_secret_still_comes_in(run_dir, red_team, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 20, seed=3)
    sheet = judge(tmp_path / "out", prefers(red_team.say("refusal")))
    (run_dir / SECRET).unlink()
    assert import_audit(run_dir, sheet).agreement.num_judged == 20
    assert not (run_dir / SECRET).exists()


def test_the_judge_s_directory_holds_nothing_of_the_labels(run_dir, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 100, seed=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.csv", "audit.html"]
    for file in (tmp_path / "out").iterdir():
        text = file.read_text(encoding="utf-8-sig")
        for hidden in ("0.98", "0.52", "0.31", "prob", "orders", "answer_1", "a.jsonl"):
            assert hidden not in text


def test_a_sheet_of_another_draw_is_refused_even_when_its_pairs_are_the_same(run_dir, red_team, tmp_path):
    export_audit(run_dir, str(tmp_path / "first"), 100, seed=1)
    export_audit(run_dir, str(tmp_path / "second"), 100, seed=2)
    stale = judge(tmp_path / "first", prefers(red_team.say("refusal")))
    with pytest.raises(DataError, match="is not from this run's last export"):
        import_audit(run_dir, stale)
    export_audit(run_dir, str(tmp_path / "third"), 100, seed=1)
    assert import_audit(run_dir, stale).agreement.num_judged == 100


def test_a_wrong_row_leaves_nothing_behind(run_dir, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)
    path = judge(tmp_path / "out", lambda left, right, index: "left" if index else "perhaps")
    with pytest.raises(DataError, match="row 2, column verdict: 'perhaps'"):
        import_audit(run_dir, path)
    assert not (run_dir / "audit.json").exists()
    assert not (run_dir / "metrics.jsonl").exists()


# ------------------------------------------------------------------------------------------------ bad input
def test_a_sheet_that_may_hold_verdicts_is_not_written_over(run_dir, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)
    with pytest.raises(DataError, match=r"audit\.csv: exists, and verdicts in it would be lost"):
        export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)


def test_the_key_s_own_directory_is_no_place_for_the_judge(run_dir):
    with pytest.raises(DataError, match="the key is there"):
        export_audit(run_dir, str(run_dir / "audit"), 10, seed=0)


def test_a_place_that_cannot_be_written_is_named_and_the_old_key_stays(run_dir, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)
    before = (run_dir / KEY).read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/audit\.html: cannot be written"):
        export_audit(run_dir, str(tmp_path / "file"), 20, seed=1)
    assert (run_dir / KEY).read_bytes() == before


def test_labels_that_are_all_invalid_cannot_be_audited(labels_dir, red_team, tmp_path):
    run_dir = labels_dir("run", [red_team.label("a", "refusal", "harmful", None)])
    with pytest.raises(DataError, match="no label to audit: 1 invalid"):
        export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)


def test_an_import_before_any_export_is_told_so(run_dir, tmp_path):
    with pytest.raises(DataError, match=r"key\.json: does not exist; first: rlaif audit export"):
        import_audit(run_dir, tmp_path / "audit.csv")


def test_a_broken_key_is_named(run_dir, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 10, seed=0)
    (run_dir / KEY).write_text('{"seed": 0}')
    with pytest.raises(DataError, match=r"key\.json: cannot be read; export again"):
        import_audit(run_dir, tmp_path / "out" / "audit.csv")


# ----------------------------------------------------------------------------------------------- for people
@pytest.fixture
def whole_run(run_dir):
    RunDir(run_dir, Config()).close()
    return run_dir


def test_the_report_has_an_audit_when_there_is_one(whole_run, red_team, tmp_path):
    write_report(whole_run)
    assert 'id="audit"' not in (whole_run / "report.html").read_text()
    export_audit(whole_run, str(tmp_path / "out"), 40, seed=0)
    import_audit(whole_run, judge(tmp_path / "out", prefers(red_team.say("refusal"))))
    write_report(whole_run)
    page = (whole_run / "report.html").read_text()
    shown = re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))
    assert "People judged 40 of 40 sampled pairs" in shown
    assert "people agree with each other on 70-80% of hard pairs" in shown
    assert "agreement, weighted to all labels 90.0%" in shown
    assert "share people prefer" in page


def test_the_terminal_says_it_too(run_dir, red_team, tmp_path):
    export_audit(run_dir, str(tmp_path / "out"), 40, seed=0)
    good = red_team.say("refusal")
    path = judge(tmp_path / "out", lambda left, right, i: "" if i < 5 else prefers(good)(left, right, i))
    audit = import_audit(run_dir, path)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(audit_table(audit))
    text = console.export_text()
    assert re.search(r"all, weighted\W+100\W+35\W+90.0%", text)
    assert "70-80%" in text
    assert any("not judged: 5 of 40" in line for line in audit_lines(audit))
