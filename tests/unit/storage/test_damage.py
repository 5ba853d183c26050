"""What stands in the place of a run's file, and where it goes."""

import os

import pytest

from rlaif.storage.damage import DamagedError, check_places, set_aside
from rlaif.storage.metrics import drop_unreadable


def test_a_run_directory_of_files_has_nothing_misplaced(tmp_path):
    (tmp_path / "preferences").mkdir()
    (tmp_path / "elsewhere").write_text("seed: 0\n")
    (tmp_path / "config.yaml").symlink_to("elsewhere")
    check_places(tmp_path)
    os.mkfifo(tmp_path / "preferences" / "preferences.parquet")
    with pytest.raises(DamagedError, match=r"preferences\.parquet: is not a file; .* mends it"):
        check_places(tmp_path)


@pytest.mark.parametrize("name", ["driver.json", ".lock", "audit/secret", "journal.sqlite"])
def test_links_that_lead_nowhere_are_seen(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(DamagedError, match=f"{name}: is not a file"):
        check_places(tmp_path)


def test_what_is_set_aside_replaces_nothing(tmp_path):
    path = tmp_path / "evaluation.json"
    for number in range(3):
        path.write_text(str(number))
        set_aside(path)
    path.mkdir()
    set_aside(path)
    names = [f"evaluation.json{number}.damaged" for number in ("", ".2", ".3")]
    assert [(tmp_path / name).read_text() for name in names] == ["0", "1", "2"]
    assert (tmp_path / "evaluation.json.4.damaged").is_dir() and not path.exists()


def test_lines_that_were_dropped_before_are_kept(tmp_path):
    log = tmp_path / "metrics.jsonl"
    for number in range(2):
        log.write_text(f'{{"a": 1}}\nbad {number}\n')
        assert drop_unreadable(log, lambda line: True) == 1
        assert drop_unreadable(log, lambda line: True) == 0
        assert log.read_text() == '{"a": 1}\n'
    kept = [tmp_path / f"metrics.jsonl{number}.damaged" for number in ("", ".2")]
    assert [path.read_text() for path in kept] == ["bad 0\n", "bad 1\n"]
