import json
from datetime import UTC, date, datetime, timedelta

import pytest

from rlaif.config.schema import Config, Gate
from rlaif.errors import RunDirError, RunError
from rlaif.records import Quarantined
from rlaif.storage.run_dir import RunDir

CONFIG = Config(run_dir="unused")


def opened(path, **changes) -> RunDir:
    return RunDir(path, CONFIG.model_copy(update=changes))


def test_a_run_directory_remembers_what_is_done(tmp_path):
    run_dir = opened(tmp_path / "run")
    run_dir.account("revisions", rows_in=3, rows_out=2, quarantined=1)
    with run_dir.time_stage("revise"):
        pass
    run_dir.close()
    again = opened(tmp_path / "run")
    assert again.is_finished("revise") and not again.is_finished("label")
    assert again.rows("revisions") == {"state": "done", "rows_in": 3, "rows_out": 2, "quarantined": 1}


def test_a_stage_that_raised_is_not_finished(tmp_path):
    run_dir = opened(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), run_dir.time_stage("revise"):
        raise ZeroDivisionError
    assert not run_dir.is_finished("revise")


def test_another_configuration_is_refused_by_key(tmp_path):
    opened(tmp_path / "run").close()
    with pytest.raises(RunDirError, match="different: seed"):
        opened(tmp_path / "run", seed=1)
    opened(tmp_path / "run").close()  # the refusal kept no lock and changed nothing


def test_the_limits_may_change_on_the_way(tmp_path):
    opened(tmp_path / "run").close()
    wider = CONFIG.labelling.model_copy(update={"gate": Gate(override=("flip_rate",))})
    opened(tmp_path / "run", labelling=wider, max_loss=0.7).close()
    stored = (tmp_path / "run" / "config.yaml").read_text()
    assert "- flip_rate" in stored and "max_loss: 0.7" in stored


def test_two_drivers_cannot_share_a_directory(tmp_path):
    run_dir = opened(tmp_path / "run")
    with pytest.raises(RunDirError, match="another process"):
        opened(tmp_path / "run")
    run_dir.close()
    opened(tmp_path / "run").close()


def test_a_missing_row_stops_the_run(tmp_path):
    with pytest.raises(RunError, match="3 rows in, but 1 out and 1 quarantined"):
        opened(tmp_path / "run").account("revisions", rows_in=3, rows_out=1, quarantined=1)


def test_metrics_and_events_are_lines_of_json(tmp_path):
    run_dir = opened(tmp_path / "run")
    run_dir.metrics.write("reinforce", {"reinforce/score/mean": 1.5, "reinforce/x/y": float("nan")}, index=3)
    run_dir.events.write("hello", n=1)
    line = json.loads((run_dir.path / "metrics.jsonl").read_text())
    assert (line["stage"], line["index"]) == ("reinforce", 3)
    assert line["metrics"] == {"reinforce/score/mean": 1.5, "reinforce/x/y": None}
    assert json.loads((run_dir.path / "events.jsonl").read_text().splitlines()[-1])["n"] == 1


def test_quarantine_names_the_kind_of_rows_and_its_batch(tmp_path):
    run_dir = opened(tmp_path / "run")
    run_dir.journal.quarantine(
        Quarantined(id="f:2@red_team.0.1#0", file="f", row=2, kind="rollouts", batch=0, cause="x")
    )
    run_dir.journal.quarantine(Quarantined(id="f:1", file="f", row=1, kind="revisions", fault="outside", cause="y"))
    assert run_dir.write_quarantine() == 2
    assert [json.loads(line) for line in (run_dir.path / "quarantine.jsonl").read_text().splitlines()] == [
        {"id": "f:1", "file": "f", "row": 1, "stage": "revisions", "cause": "y", "fault": "outside"},
        {"id": "f:2@red_team.0.1#0", "file": "f", "row": 2, "stage": "rollouts/00000000", "cause": "x", "fault": "row"},
    ]


def test_a_line_that_was_cut_off_is_dropped_from_the_logs(tmp_path):
    run_dir = opened(tmp_path / "run")
    run_dir.events.write("one")
    run_dir.close()
    log = tmp_path / "run" / "events.jsonl"
    log.write_text(log.read_text() + '{"time": 1, "eve')
    run_dir = opened(tmp_path / "run")
    run_dir.events.write("two")
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["one", "two"]


def test_the_day_on_which_a_run_began_is_kept_when_it_is_resumed(tmp_path):
    run_dir = opened(tmp_path / "run")
    assert abs(run_dir.began - datetime.now(UTC).date()) <= timedelta(days=1)
    run_dir.write_manifest(began="2025-01-31")
    run_dir.close()
    assert opened(tmp_path / "run").began == date(2025, 1, 31)
