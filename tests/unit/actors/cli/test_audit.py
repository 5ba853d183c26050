"""``rlaif audit`` as a user runs it: what it prints, and that a mistake gives one message and exit code 2."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cli.__main__ import main
from rlaif.records import Judgement, Preference, Status, Turn
from rlaif.storage.record_schema import arrow_schema, to_row


def label(number):
    sure = number % 2 == 0
    return Preference(
        id=f"a.jsonl:{number}",
        source_file="a.jsonl",
        source_row=number,
        status=Status.OK,
        error=None,
        seconds=0.1,
        seed=0,
        model_version="m",
        axis="red_team",
        prompt=(Turn(role="human", text="How?"),),
        prompt_ids=(1,),
        answer_1="=cmd|' /C calc'!A0",
        answer_2=f"No, not {number}.",
        token_ids_1=(1,),
        token_ids_2=(2,),
        policy_version=0,
        prob=0.95 if sure else 0.55,
        aggregation="prob_mean",
        judgements=tuple(
            Judgement(principle_id="p", order=order, logprob_a=a, logprob_b=0.0)
            for order, a in ((1, 3.0), (2, -3.0 if sure else 2.0))
        ),
        constitution_hash="c",
        template_version="1",
        truncated=False,
    )


@pytest.fixture
def run_dir(tmp_path):
    rows = [dict(to_row(label(number))) for number in range(30)]
    path = tmp_path / "run" / "preferences" / "preferences.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema(Preference)), path)
    return tmp_path / "run"


def rlaif(*arguments):
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    return leaving.value.code


def fill(path, verdict):
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    for row in rows[1:]:
        row[4] = verdict
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)


def test_export_and_import(run_dir, tmp_path, capsys):
    out = tmp_path / "out"
    assert rlaif("audit", "export", run_dir, "--rows", 12, "--out", out, "--seed", 4) == 0
    assert "12 of 30 labels drawn, from 2 strata" in capsys.readouterr().out
    assert "\"'=cmd|" in (out / "audit.csv").read_text(encoding="utf-8-sig")

    fill(out / "audit.csv", "tie")
    assert rlaif("audit", "import", run_dir, out / "audit.csv") == 0
    printed = capsys.readouterr().out
    assert "50.0%" in printed
    assert "people agree with each other on 70-80% of hard pairs" in printed
    assert (run_dir / "audit.json").is_file()


def test_a_mistake_is_one_message(run_dir, tmp_path, capsys):
    out = tmp_path / "out"
    assert rlaif("audit", "export", tmp_path, "--out", out) == 2
    assert "no labels in preferences/" in capsys.readouterr().err
    assert rlaif("audit", "export", run_dir, "--rows", 5, "--out", out) == 0
    fill(out / "audit.csv", "better")
    assert rlaif("audit", "import", run_dir, out / "audit.csv") == 2
    error = capsys.readouterr().err
    assert error.count("column verdict: 'better' is not left, right or tie") == 5
    assert "Traceback" not in error
