"""What of a run directory is copied for others."""

import pytest

from rlaif.errors import DataError
from rlaif.storage.export import export_run


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "run"
    (run / "models" / "sl_cai").mkdir(parents=True)
    (run / "preferences").mkdir()
    for name in ("manifest.json", "config.yaml", "report.html", "models/sl_cai/config.json"):
        (run / name).write_text(name)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "id_rsa").write_text("secret")
    return run


def test_links_that_lead_out_of_a_run_are_left_out_and_named(run, tmp_path, caplog):
    for name in ("metrics.jsonl", "models/sl_cai/x.json", "preferences/preferences.parquet"):
        (run / name).symlink_to(tmp_path / "theirs" / "id_rsa")
    (run / "models" / "rl_cai").symlink_to(tmp_path / "theirs")
    (run / "models" / "sl_cai" / "same.json").symlink_to("config.json")
    copied = export_run(run, str(tmp_path / "copy"), models=True)
    names = ["config.yaml", "report.html", "models/sl_cai/config.json", "models/sl_cai/same.json"]
    assert copied == [str(tmp_path / "copy" / name) for name in names]
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert len(files) == len(names) and not any("secret" in path.read_text() for path in files)
    for name in ("metrics.jsonl", "models/sl_cai/x.json", "models/rl_cai/id_rsa", "preferences/preferences.parquet"):
        assert f"{run / name}: is left out" in caplog.text


def test_a_run_that_is_reached_by_a_link_is_copied(run, tmp_path):
    (tmp_path / "link").symlink_to(run)
    assert len(export_run(tmp_path / "link", str(tmp_path / "copy"), models=True)) == 3


@pytest.mark.parametrize("place", [".", "preferences", "new/below", "models/../preferences"])
def test_nothing_is_copied_into_the_run_directory(run, place):
    with pytest.raises(DataError, match="is in the run directory"):
        export_run(run, str(run / place), models=False)
