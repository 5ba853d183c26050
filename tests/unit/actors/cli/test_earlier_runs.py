"""Commands that look at a run directory read those of earlier versions, and refuse those of later ones by name."""

import json

import pytest

from actors.cli.__main__ import main
from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from rlaif.evaluation.findings import Findings


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main([*arguments])
    return left.value.code or 0


@pytest.fixture
def run_dir(tmp_path):
    """What an earlier version left: kinds of rows under "stages", stages under "finished", metrics with a "step"."""
    counts = {"quarantined": 0, "rows_in": 1234, "rows_out": 1234, "state": "done"}
    manifest = {"finished": {"label": {"seconds": 7.25}}, "stages": {"comparisons": counts, "reinforce": counts}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "config.yaml").write_text(dump_config(Config(run_dir=str(tmp_path))))
    (tmp_path / "events.jsonl").write_text('{"time": 1.0, "event": "stage_started", "stage": "reinforce"}\n')
    lines = [
        {"time": 1.0, "stage": "reinforce", "step": step, "metrics": {"reinforce/score/mean": value}}
        for step, value in ((2, 0.5), (1, 0.25), (2, 0.75))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_status_tells_stages_from_rows(run_dir, capsys):
    assert command("status", str(run_dir)) == 0
    words = capsys.readouterr().out.replace("│", " ").split()
    assert words[words.index("label") :][:3] == ["label", "done", "7.2"]
    assert words[words.index("reinforce") :][:3] == ["reinforce", "not", "finished"]
    assert words[words.index("comparisons") :][:3] == ["comparisons", "1,234", "1,234"]


def test_report_shows_rows_and_series(run_dir, capsys):
    assert command("report", str(run_dir)) == 0
    page = (run_dir / "report.html").read_text()
    assert "label (7.2 s)" in page and "1,234" in page
    assert "comparisons" in capsys.readouterr().out
    assert Findings(run_dir).metrics == {"reinforce/score/mean": [(1, 0.25), (2, 0.75)]}


@pytest.mark.parametrize("name", ["status", "report"])
def test_a_later_format_is_refused(run_dir, capsys, name):
    (run_dir / "manifest.json").write_text('{"format": 9}')
    assert command(name, str(run_dir)) == 2
    assert "manifest.json: format=9: this version reads formats 1 to 2" in capsys.readouterr().err
