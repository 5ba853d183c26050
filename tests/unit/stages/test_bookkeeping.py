"""What becomes of a source's rows: counted, quarantined, and what of a directory is no row is an event."""

import json

import pytest

from rlaif.config.schema import Config
from rlaif.constitution.principles import load_constitution
from rlaif.in_process import InProcessPools
from rlaif.stages.bookkeeping import account_source
from rlaif.stages.run import Run, Silent
from rlaif.storage.run_dir import RunDir


@pytest.fixture
def run(tmp_path):
    config = Config(run_dir=str(tmp_path / "run"))
    run_dir = RunDir(tmp_path / "run", config)
    yield Run(
        config=config,
        constitution=load_constitution(config.constitution),
        run_dir=run_dir,
        paths={},
        pools=InProcessPools(config),
        trainers=None,
        progress=Silent(),
    )
    run_dir.close()


def account(run, source):
    num_good = account_source(run, "prompts_red_team", source, run.read(source, "red_team"))
    assert run.run_dir.rows("prompts_red_team")["rows_out"] == num_good
    return {key: value for key, value in run.run_dir.rows("prompts_red_team").items() if key != "state"}


def test_choices_of_rows_of_one_file_are_counted_by_themselves(run, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{broken\n{"prompt": "b"}\n{broken\n{"prompt": "c"}\n')
    assert account(run, f"{tmp_path}/a.jsonl#1-3") == {"rows_in": 3, "rows_out": 2, "quarantined": 1}
    assert account(run, f"{tmp_path}/a.jsonl#4-5") == {"rows_in": 2, "rows_out": 1, "quarantined": 1}
    assert account(run, f"{tmp_path}/a.jsonl") == {"rows_in": 5, "rows_out": 3, "quarantined": 2}


def test_what_is_passed_over_is_an_event(run, tmp_path):
    directory = tmp_path / "prompts"
    directory.mkdir()
    (directory / "a.jsonl").write_text('{"prompt": "a"}\n')
    (directory / "b.xlsx").touch()
    (directory / "._a.jsonl").touch()
    account(run, str(directory))
    names = ["b.xlsx (unknown kind of file)", "._a.jsonl (hidden)"]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["files"] for event in events if event["event"] == "files_passed_over"] == [names]
