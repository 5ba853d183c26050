import json
import os
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.config.schema import Config, Gate
from rlaif.errors import RunDirError, RunError, StorageError
from rlaif.records import Quarantined
from rlaif.storage.damage import DamagedError
from rlaif.storage.journal import Journal
from rlaif.storage.metrics import drop_half_line
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


def test_the_machine_may_change_on_the_way(tmp_path):
    opened(tmp_path / "run").close()
    ranks = CONFIG.policy_trainer.model_copy(update={"ranks": 4, "zero_stage": 3, "gpus": 1.0})
    engines = CONFIG.generator.model_copy(update={"max": 8, "tensor_parallel": 2})
    resources = CONFIG.resources.model_copy(update={"gpus": 8})
    opened(tmp_path / "run", policy_trainer=ranks, generator=engines, resources=resources).close()
    longer = engines.model_copy(update={"max_length": 2048})
    with pytest.raises(RunDirError, match=r"different: generator\.max_length; "):
        opened(tmp_path / "run", policy_trainer=ranks, generator=longer, resources=resources)
    halves = ranks.model_copy(update={"dtype": "bfloat16"})
    with pytest.raises(RunDirError, match=r"different: policy_trainer\.dtype; "):
        opened(tmp_path / "run", policy_trainer=halves, generator=engines, resources=resources)


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


def test_what_a_manifest_lists_is_on_disk_before_it(tmp_path, monkeypatch):
    """The whole order; ``tests/pipeline/test_crash_points.py`` shows that it is enough."""
    run_dir = opened(tmp_path / "run")
    model = run_dir.model("sl_cai")
    model.mkdir(parents=True)
    (model / "weights").write_text("w")
    run_dir.journal.quarantine(Quarantined(id="f:1", file="f", row=1, kind="revisions", cause="y"))
    done, fsync, replace = [], os.fsync, os.replace

    def settled(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        done.append(f"settle {re.sub('[.][0-9]+$', '', path.name)}")
        fsync(descriptor)

    def renamed(old, new):
        done.append(f"name {Path(new).name}")
        replace(old, new)

    def journal_settled(journal):
        done.append("settle the journal's rows")  # by SQLite itself
        settle(journal)

    settle = Journal.settle
    monkeypatch.setattr(Journal, "settle", journal_settled)
    monkeypatch.setattr(os, "fsync", settled)
    monkeypatch.setattr(os, "replace", renamed)
    with run_dir.time_stage("supervise"):
        run_dir.settle_models(["sl_cai", "rl_cai"])
    assert done == [
        *("settle weights", "settle sl_cai", "settle models"),
        *("settle .quarantine.jsonl", "name quarantine.jsonl", "settle run"),
        *("settle the journal's rows", "settle run", "settle events.jsonl"),
        *("settle .manifest.json", "name manifest.json", "settle run"),
    ]


def test_a_directory_may_be_named_in_another_way(tmp_path, monkeypatch):
    opened(tmp_path / "run", run_dir=str(tmp_path / "run")).close()
    monkeypatch.chdir(tmp_path)
    opened(Path("run"), run_dir="./run").close()
    (tmp_path / "run").rename(tmp_path / "moved")
    opened(tmp_path / "moved", run_dir="moved").close()


def test_another_configuration_is_refused_when_the_stored_one_is_lost(tmp_path):
    opened(tmp_path / "run").close()
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(RunDirError, match=r"made with another configuration, and config.yaml.* is missing"):
        opened(tmp_path / "run", seed=1)
    opened(tmp_path / "run").close()


def test_a_manifest_that_is_lost_is_not_begun_anew(tmp_path):
    run_dir = opened(tmp_path / "run")
    run_dir.journal.quarantine(Quarantined(id="f:1", file="f", row=1, kind="revisions", cause="y"))
    run_dir.close()
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(DamagedError, match=r"manifest.json: is missing; it holds which stages have finished"):
        opened(tmp_path / "run")


def test_logs_that_cannot_be_written_are_named(tmp_path):
    run_dir = opened(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"metrics.jsonl: cannot write: Is a directory"):
        run_dir.metrics.write("x", {})
    run_dir.close()
    with pytest.raises(DamagedError, match=r"metrics.jsonl: is not a file; .* mends it"):
        opened(tmp_path / "run")


@settings(max_examples=50)
@given(lines=st.lists(st.integers(0, 200_000), max_size=3), rest=st.integers(0, 200_000))
def test_half_a_line_is_dropped_however_long_it_is(tmp_path_factory, lines, rest):
    log = tmp_path_factory.mktemp("log") / "events.jsonl"
    whole = b"".join(b"x" * line + b"\n" for line in lines)
    half = b"x" * rest
    log.write_bytes(whole + half)
    assert drop_half_line(log) == len(half)
    assert log.read_bytes() == whole
