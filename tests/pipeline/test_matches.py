"""Matches between snapshots in a whole run: chosen in rounds, judged once, the same after a resume."""

import json
from pathlib import Path

import pytest

from actors.cli.__main__ import main
from rlaif.evaluation.elo import matches_kind
from rlaif.records import Preference
from rlaif.stages import matches
from rlaif.storage.journal import Journal

NUM = 40


def run(out: Path) -> int:
    command = ["run", "scripted", "--in-process", f"run_dir={out}", f"evaluation.matches={NUM}"]
    command += ["evaluation.answers_per_cell=30", "reinforcement.batches=2"]
    with pytest.raises(SystemExit) as left:
        main(command)
    return left.value.code or 0


def played(out: Path, axis: str) -> list[str]:
    journal = Journal(out / "journal.sqlite")
    ids = sorted(label.id for label in journal.records(Preference, matches_kind(axis)))
    journal.close()
    return ids


def test_a_run_that_is_stopped_between_rounds_plays_the_same_matches(tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(whole) == 0
    rounds = 0
    record = matches.record

    async def stop_in_third_round(*args):
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise KeyboardInterrupt
        return await record(*args)

    monkeypatch.setattr(matches, "record", stop_in_third_round)
    assert run(stopped) == 130
    assert 0 < len(played(stopped, "red_team")) < NUM
    monkeypatch.setattr(matches, "record", record)
    assert run(stopped) == 0
    for axis in ("red_team", "helpful"):
        assert len(played(whole, axis)) == NUM and played(stopped, axis) == played(whole, axis)
    first, second = (json.loads((out / "evaluation.json").read_text())["elo"] for out in (whole, stopped))
    assert first == second and set(first) == {"red_team", "benign"}
    rows = json.loads((stopped / "manifest.json").read_text())["rows"]
    assert rows["matches_red_team"]["rows_out"] == NUM
    assert "Elo" in (stopped / "report.html").read_text()
