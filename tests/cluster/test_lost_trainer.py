"""A trainer that is lost as a whole because its mailbox or controller dies. ``test_trainer`` covers lost ranks."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from actors.driver import drive
from actors.trainer.trainer import RayTrainers
from actors.work import PIPELINE
from benchmarks.branches import branch
from rlaif.config.schema import Config
from rlaif.stages.run import Silent
from tests.chaos.test_killed_driver import left_by, scripted
from tests.cluster.test_run import start
from tests.cluster.test_trainer import NUM_ROWS, sft_job

TIMEOUT_S = 240


def shorter(config: Config, run_dir: Path) -> Config:
    values = scripted(config, run_dir, max_staleness=1).model_dump()
    values["reinforcement"] |= {"batches": 16, "checkpoint_every": 3}
    return Config.model_validate(values)


def events(run_dir: Path, name: str) -> list[dict]:
    path = run_dir / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == name]


def processes(parent: psutil.Process, title: str) -> list[psutil.Process]:
    """Processes of Ray actors under ``parent`` whose title starts with ``title``, oldest first."""
    found = []
    for process in parent.children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.create_time())


async def test_a_run_that_loses_a_trainer_ends_as_if_nothing_had_happened(tiny_config, tmp_path):
    twin = await drive(shorter(tiny_config, tmp_path / "twin"), Silent(), PIPELINE, in_process=True)
    run_dir = tmp_path / "run"
    branch(twin, run_dir, shorter(tiny_config, run_dir))
    for log in ("events.jsonl", "metrics.jsonl"):
        (run_dir / log).write_text("")
    process = start("stage", "reinforce", str(run_dir / "config.yaml"))
    wait_until(lambda: learns(run_dir), process)
    processes(psutil.Process(process.pid), "ray::Mailbox")[0].send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, stderr
    assert [event["restarts"] for event in events(run_dir, "trainer_lost")] == [1]
    found, wanted = left_by(run_dir), left_by(twin)
    del found["counts"], wanted["counts"]  # the twin has run evaluation, too
    assert found == wanted


def wait_until(holds: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"still waiting after {TIMEOUT_S} s"
        time.sleep(0.05)


def learns(run_dir: Path) -> bool:
    """Whether batches after the first checkpoint have been learned since the loops started."""
    started = events(run_dir, "loops_started")
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    learned = [line["time"] for line in lines if "reinforce/data/num_samples" in line["metrics"]]
    return bool(started) and sum(at > started[0]["time"] for at in learned) >= 5


@pytest.mark.usefixtures("cluster")
async def test_a_fit_whose_controller_dies_begins_again_and_misses_no_row(tmp_path: Path) -> None:
    killed = []

    def kill_once(name: str, metrics: object) -> None:
        if not killed:
            killed.extend(processes(psutil.Process(), "ray::TrainController")[-1:])
            killed[0].send_signal(signal.SIGKILL)

    metrics = await RayTrainers(tmp_path, kill_once).supervise(sft_job(tmp_path))
    assert killed
    assert metrics["supervise/data/num_rows"] == 2 * NUM_ROWS
