"""Another user's files do not steer a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlaif.config.schema import Config
from rlaif.errors import RunDirError
from rlaif.storage import ownership
from rlaif.storage.ownership import check_own_run, foreign_owner
from rlaif.storage.run_dir import RunDir

STRANGER = 54_321


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch):
    """Lets a file belong to a stranger: really, where the tests run as root; else by being a stranger to oneself."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, STRANGER, -1)
        else:
            owner = path.stat().st_uid
            monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
            monkeypatch.setattr(ownership, "_uid_of_new_files", lambda directory: owner + 1)

    return give


def test_ones_own_run_and_roots_are_ones_own(tmp_path):
    (tmp_path / "driver.json").touch()
    check_own_run(tmp_path)
    assert foreign_owner(Path("/")) is None


@pytest.mark.parametrize("name", [".", "driver.json", "journal.sqlite"])
def test_whatever_a_stranger_put_there_is_named(tmp_path, give_away, name):
    (tmp_path / "journal.sqlite").touch()
    (tmp_path / "driver.json").touch()
    give_away(tmp_path / name)
    with pytest.raises(RunDirError, match=r"belongs to user .*may have put anything there; use another run_dir="):
        check_own_run(tmp_path)


def test_a_link_belongs_to_whoever_made_it(tmp_path):
    (tmp_path / "models").symlink_to("/")
    check_own_run(tmp_path)


def test_ranks_may_be_another_users(tmp_path, give_away):
    (tmp_path / "checkpoints").mkdir()
    if os.geteuid() == 0:  # elsewhere, everything would become a stranger's
        give_away(tmp_path / "checkpoints")
    check_own_run(tmp_path)


def test_storage_that_shows_all_files_as_one_users_is_believed(tmp_path, give_away, monkeypatch):
    give_away(tmp_path)
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(ownership, "_uid_of_new_files", lambda directory: owner)
    check_own_run(tmp_path)


def test_a_strangers_run_is_not_resumed(tmp_path, give_away):
    config = Config(run_dir=str(tmp_path / "run"))
    RunDir(tmp_path / "run", config).close()
    give_away(tmp_path / "run")
    with pytest.raises(RunDirError, match="belongs to user"):
        RunDir(tmp_path / "run", config)
