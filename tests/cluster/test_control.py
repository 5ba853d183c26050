"""``rlaif status`` and ``rlaif scale``, given by a user while a run is going on."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.cluster.announcement import announce
from actors.cluster.board import Board
from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from rlaif.storage.manifest import new_manifest, write_manifest
from tests.cluster.test_lost_trainer import processes, wait_until
from tests.cluster.test_run import NUM_ROWS, recorded, rlaif, scripted, start, wait_for_rows

__all__ = ["scripted"]

#: A row makes five requests, so one engine, which holds 8 rows, finishes 4 rows in 3 seconds.
SLOW = tuple(
    f"generator.{setting}"
    for setting in ("scripted.concurrency=1", "scripted.latency_s=0.15", "max=4", "cpus=0.5", "max_in_flight=8")
)
MISTAKES = {
    ("generator", "5"): "generator: 5 engines asked for; generator.min=1 and max=4",
    ("policy_trainer", "2"): "policy_trainer: has as many ranks as the run began with; the roles that scale: ",
    ("judge", "2"): "judge: is not a role; the roles that scale: generator, labeller, scorer",
    ("scorer", "1"): "scorer: no engines now; it opens in: reinforce",
}


@pytest.fixture
def going(scripted):
    """A run in its second stage, which would take four minutes: on a busy machine a command is slow."""
    config, run_dir = scripted
    assert rlaif("stage", "read", config, *SLOW, "--in-process").returncode == 0
    process = start("stage", "revise", config, *SLOW)
    try:
        wait_for_rows(process, run_dir, 5)
        yield process, run_dir
    finally:
        process.kill()
        process.communicate()


def test_a_running_job_answers_is_scaled_up_and_down_and_loses_no_row(going):
    """One run for everything, because starting one is slow."""
    process, run_dir = going
    check_status(process, run_dir)
    for (role, size), message in MISTAKES.items():
        check_mistake(rlaif("scale", str(run_dir), role, size), message)
    growing = start("scale", str(run_dir), "generator", "4")
    wait_until(lambda: len(processes(psutil.Process(process.pid), "ray::EngineActor")) > 1, process)
    stdout, stderr = growing.communicate(timeout=300)
    check_scaled(subprocess.CompletedProcess(growing.args, growing.returncode, stdout, stderr), 4)
    assert process.poll() is None
    check_scaled(rlaif("scale", str(run_dir), "generator", "1"), 1)
    assert len(recorded(run_dir)) < NUM_ROWS, "the run ended before it was scaled down"
    check_scaled(rlaif("scale", str(run_dir), "generator", "4"), 4)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert len(recorded(run_dir)) == NUM_ROWS
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    assert Counter(e["rows"] for e in events if e["event"] == "rows_done")["revisions"] == 1
    shown = rlaif("status", str(run_dir))
    assert shown.returncode == 0 and "not running" in shown.stdout and "revisions" in shown.stdout


def check_status(process: subprocess.Popen, run_dir: Path) -> None:
    shown = rlaif("status", str(run_dir))
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == "", "Ray's messages leak through"
    assert f"pid {process.pid}" in shown.stdout and "revise" in shown.stdout and "generator" in shown.stdout


def check_mistake(result: subprocess.CompletedProcess, message: str) -> None:
    assert result.returncode == 2
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def check_scaled(result: subprocess.CompletedProcess, size: int) -> None:
    assert (result.returncode, result.stderr) == (0, "")
    assert f"generator: {size} engines serve" in result.stdout


class Malice:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["a pickle", "not what was asked for"])
def test_answers_are_data_whoever_gives_them(tmp_path: Path, cluster: str, kind: str) -> None:
    run_dir, made = tmp_path / "run", tmp_path / "made"
    answer = pickle.dumps(Malice(made)) if kind == "a pickle" else b'{"pools": 1}'
    write_manifest(run_dir, new_manifest())
    (run_dir / "events.jsonl").touch()
    (run_dir / "config.yaml").write_text(dump_config(Config(run_dir=str(run_dir))))
    with announce(run_dir, address=cluster, namespace="malice"):
        asking = start("status", str(run_dir))
        asyncio.run(answer_with(Board(cluster, "malice"), answer, asking))
        stdout, stderr = asking.communicate(timeout=60)
    assert asking.returncode == 1, stdout + stderr
    assert stderr == f"error: {run_dir}: its driver's answer is not one of this version of rlaif\n"
    assert not made.exists()


async def answer_with(board: Board, answer: bytes, asking: subprocess.Popen) -> None:
    while not (orders := await board.orders()):
        assert asking.poll() is None, asking.communicate()
        await asyncio.sleep(0.1)
    for key in orders:
        await board.put_answer(key, answer)


def test_a_directory_without_a_run(tmp_path: Path, scripted):
    config, run_dir = scripted
    for command in (("status", str(tmp_path / "none")), ("scale", str(tmp_path / "none"), "generator", "2")):
        result = rlaif(*command)
        assert result.returncode == 2 and "not a run directory" in result.stderr
    assert rlaif("stage", "read", config, "--in-process").returncode == 0
    result = rlaif("scale", str(run_dir), "generator", "1")
    assert result.returncode == 2 and "not running on a cluster now" in result.stderr
