"""``rlaif`` as a user runs it: as separate processes, on real Ray."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from tests.tiny_models import MAX_LENGTH

NUM_ROWS = 300
IN_FLIGHT = 32


def rlaif(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "actors.cli", *arguments], capture_output=True, text=True, timeout=600)


def start(*arguments: str) -> subprocess.Popen:
    """Start the command as a terminal would: with SIGINT enabled, which tests in the background would ignore."""
    return subprocess.Popen(
        [sys.executable, "-m", "actors.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def scripted(tmp_path, tiny_world) -> tuple[str, Path]:
    """A configuration with a scripted generator, slow enough to be interrupted; and its run directory."""
    red_team = tmp_path / "red_team.jsonl"
    red_team.write_text("".join(json.dumps({"prompt": f"Thing {i}?"}) + "\n" for i in range(NUM_ROWS)))
    models = {name: tiny_world[name] for name in ("helpful_only", "feedback", "base")}
    config = Config.model_validate(
        {
            "run_dir": str(tmp_path / "run"),
            "data": {"red_team": str(red_team), "helpful": tiny_world["helpful"], "helpful_pairs": None, "votes": None},
            "evaluation": {
                "red_team": tiny_world["held_out"],
                "helpful": tiny_world["held_out"],
                "answers_per_cell": 12,
            },
            "generator": {
                "engine": "scripted",
                "model": models["helpful_only"],
                "scripted": {"latency_s": 0.05},
                "max_length": 1024,
                "max_in_flight": IN_FLIGHT,
                "chunk_rows": 8,
            },
            "sampling": {"max_tokens": 8},
            "critique_revision": {"max_critique_tokens": 8, "max_revision_tokens": 8},
            "labeller": {"model": models["feedback"], "max_length": MAX_LENGTH},
            "supervision": {"base_model": models["base"]},
            "preference_model": {"base_model": models["base"]},
            "resources": {"cpus": 4},
        }
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    return str(path), Path(config.run_dir)


def recorded(run_dir: Path) -> dict[str, float]:
    """Ids of the revisions in the journal, with the seconds that each took."""
    if not (run_dir / "journal.sqlite").exists():
        return {}
    with closing(sqlite3.connect(run_dir / "journal.sqlite")) as db:
        rows = db.execute("SELECT id, record FROM records WHERE kind = 'revisions'").fetchall()
    return {id: json.loads(record)["seconds"] for id, record in rows}


def wait_for_rows(process: subprocess.Popen, run_dir: Path, num: int) -> None:
    deadline = time.monotonic() + 120
    while len(recorded(run_dir)) < num:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"only {len(recorded(run_dir))} rows after 120 s"
        time.sleep(0.05)


def actors_of(process: subprocess.Popen) -> list[psutil.Process]:
    """Ray's node and workers under a driver, without its two small agents, which take minutes to notice a lost node."""
    tree = psutil.Process(process.pid).children(recursive=True)
    return [p for p in tree if not p.name().startswith(("ray::Dashboard", "ray::RuntimeEnv"))]


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while (alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.2)
    return alive


def test_whatever_ends_a_driver_the_same_command_goes_on_and_repeats_no_row(scripted):
    """One run for everything, because starting one is slow: killed, then stopped by Ctrl-C, then stopped as a job."""
    config, run_dir = scripted
    assert rlaif("stage", "read", config, "--in-process").returncode == 0
    before: dict[str, float] = {}
    for sent, num_more, code in ((signal.SIGKILL, 60, -9), (signal.SIGINT, 20, 130), (signal.SIGTERM, 20, 130)):
        process = start("stage", "revise", config)
        wait_for_rows(process, run_dir, len(before) + num_more)
        actors = actors_of(process)
        assert actors
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == code, stderr
        assert not still_running(actors), "Ray outlived its driver"
        check_last_words(process, run_dir, stderr)
        before = recorded_again(before, run_dir)
        assert len(before) < NUM_ROWS
    again = rlaif("stage", "revise", config)
    assert again.returncode == 0, again.stderr
    assert len(recorded_again(before, run_dir)) == NUM_ROWS
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["rows"]["revisions"] == {
        "state": "done",
        "rows_in": NUM_ROWS,
        "rows_out": NUM_ROWS,
        "quarantined": 0,
    }


def check_last_words(process: subprocess.Popen, run_dir: Path, stderr: str) -> None:
    """An interrupted driver says how to resume; a killed one cannot, so ``status`` and ``scale`` report its end."""
    assert "Traceback" not in stderr
    if process.returncode == 130:
        assert "same command" in stderr
        assert not (run_dir / "driver.json").exists()
        return
    assert rlaif("status", str(run_dir)).returncode == 0
    scaled = rlaif("scale", str(run_dir), "generator", "2")
    assert scaled.returncode == 2
    assert f"its driver (pid {process.pid} on " in scaled.stderr


def recorded_again(before: dict[str, float], run_dir: Path) -> dict[str, float]:
    """The journal now. No row of ``before`` was computed again: each record is unchanged, seconds included."""
    after = recorded(run_dir)
    assert {id: after[id] for id in before} == before
    return after


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["generatr.min=1"], "did you mean generator"),
        (["labelling.aggregation=median", "sampling.max_tokens=0"], "sampling.max_tokens=0"),
        (["data.red_team=/nowhere.jsonl"], "data.red_team=/nowhere.jsonl"),
        (["generator.model=./nowhere"], "generator.model=./nowhere"),
        (["generator.gpus=3"], "generator"),
        (["constitution=none_such"], "sixteen_principles"),
    ],
)
def test_mistakes_end_with_2_and_one_clear_message(scripted, overrides, told):
    config, run_dir = scripted
    result = rlaif("run", config, *overrides)
    assert result.returncode == 2, result.stderr
    assert told in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert not run_dir.exists()


def test_a_data_file_of_bad_rows_alone_is_named(scripted, tmp_path):
    config, _ = scripted
    (tmp_path / "bad.jsonl").write_text('{"no": 1}\nnot json\n')
    result = rlaif("run", config, f"data.red_team={tmp_path / 'bad.jsonl'}")
    assert result.returncode == 2
    assert "bad.jsonl" in result.stderr and "prompt" in result.stderr and "row 1" in result.stderr


def test_the_whole_method_on_ray_with_vllm(tiny_config, tmp_path):
    """Every stage on actors, with vLLM engines and Ray Train ranks; stock libraries load the saved models."""
    changes = {role: {"engine": "vllm", "kv_cache_gib": 0.25} for role in ("generator", "labeller", "scorer")}
    values = tiny_config.model_dump()
    for role, change in changes.items():
        values[role] |= change
    values["resources"]["cpus"] = 4
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(Config.model_validate(values)))
    result = rlaif("run", str(path))
    assert result.returncode == 0, result.stderr
    run_dir = Path(tiny_config.run_dir)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert len(manifest["stages"]) == 7
    assert all(s["rows_in"] == s["rows_out"] + s["quarantined"] for s in manifest["rows"].values())
    check = Path(__file__).parent / "check_saved_models.py"
    checked = subprocess.run(
        [sys.executable, str(check), str(run_dir)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
