"""A run directory that is moved, copied, named in another way, or read-only."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actors.driver import drive
from actors.work import PIPELINE, one_stage
from rlaif.stages.run import Silent
from tests.machine import lacking
from tests.small_run import finished_run, left_by, small


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_world) -> Path:
    return finished_run(tiny_world, tmp_path_factory.mktemp("finished"))


@pytest.mark.parametrize("spelt", ["moved/to/run", "./moved/../moved/to/run/", "{absolute}/moved/to/run"])
async def test_a_run_goes_on_where_its_directory_is_now(finished, tiny_config, tmp_path, monkeypatch, spelt):
    config = small(tiny_config, tmp_path).model_copy(update={"run_dir": str(tmp_path / "run")})
    for stage in ("read", "revise", "supervise", "label"):
        await drive(config, Silent(), one_stage(stage), in_process=True)
    (tmp_path / "moved" / "to").mkdir(parents=True)
    shutil.move(tmp_path / "run", tmp_path / "moved" / "to" / "run")
    monkeypatch.chdir(tmp_path)
    config = config.model_copy(update={"run_dir": spelt.format(absolute=tmp_path)})
    run = await drive(config, Silent(), PIPELINE, in_process=True)
    found, wanted = left_by(run), left_by(finished / "run")
    assert found["learned"].keys() == wanted["learned"].keys() and found["stages"] == wanted["stages"]
    assert {kind: counts["rows_out"] for kind, counts in found["rows"].items()} == {
        kind: counts["rows_out"] for kind, counts in wanted["rows"].items()
    }


def without_write_permission(run: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command that may not write ``run``, whoever calls it."""
    directories = [run, *(path for path in run.rglob("*") if path.is_dir())]
    powerless = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if powerless and not shutil.which("setpriv"):
        lacking("setpriv, without which root can write everything")
    command = [*powerless, sys.executable, "-m", "actors.cli", *map(str, arguments)]
    modes = {path: path.stat().st_mode for path in run.rglob("*")} | {run: run.stat().st_mode}
    try:
        for path in modes:
            path.chmod(0o555 if path in directories else 0o444)
        return subprocess.run(command, capture_output=True, text=True)
    finally:
        for path in sorted(modes):
            path.chmod(modes[path])


def test_what_only_reads_works_on_a_directory_that_cannot_be_written(finished, tmp_path):
    run = finished / "run"
    for arguments in (
        ("status", run),
        ("report", run, "--out", tmp_path / "report.html"),
        ("reaggregate", run, "--out", tmp_path / "labels.parquet"),
        ("plan", finished / "config.yaml", f"run_dir={run}"),
        ("export", run, tmp_path / "exported"),
    ):
        done = without_write_permission(run, *arguments)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("report", "{run}"),
            "report.html: cannot be written: Permission denied; name a place for the report",
        ),
        (("run", "{config}", "run_dir={run}", "--in-process"), "cannot write the run directory"),
        (("doctor", "{run}"), "cannot be mended: Permission denied; copy it to where it can be written"),
        (("audit", "export", "{run}", "--out", "{place}/audit"), "secret: cannot be written: Permission denied"),
    ],
)
def test_what_writes_says_what_it_cannot_write(finished, tmp_path, arguments, message):
    run = finished / "run"
    values = {"run": run, "config": finished / "config.yaml", "place": tmp_path}
    done = without_write_permission(run, *(part.format(**values) for part in arguments))
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr


def test_brackets_in_a_path_are_text(finished, tmp_path):
    run = tmp_path / "odd[/b] exp[red] #2"
    shutil.copytree(finished / "run", run)
    for command in (["status", run], ["report", run], ["doctor", run], ["reaggregate", run, "--out", tmp_path / "x"]):
        done = subprocess.run([sys.executable, "-m", "actors.cli", *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert command[0] == "reaggregate" or "odd[/b] exp[red] #2" in done.stdout
