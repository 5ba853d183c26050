"""The driver is killed at random points, twenty times: the run must end with what an undisturbed run leaves.

Engines and trainers are scripted, so that both must match exactly: every row of every table, and a digest of everything
that was learned, in order. Ray, its actors and Ray Train's ranks are real.
"""

import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from rlaif.training.scripted import DIGEST
from tests.cluster.test_run import actors_of, rlaif, start, still_running
from tests.conftest import tiny_config_of

ROLES = ("generator", "labeller", "scorer", "policy_trainer", "preference_trainer")
TABLES = ("revisions/revisions", "comparisons/comparisons", "preferences/preferences", "rollouts/rollouts")
REFRESHED = ("comparisons/refresh", "preferences/refresh")
KILLS = 10
#: Wall-clock time, and the policy version that happened to answer while other things ran.
INCIDENTAL = ("seconds", "policy_version", "policy_version_start", "policy_version_end")


def scripted(config: Config, run_dir: Path, max_staleness: int) -> Config:
    values = config.model_dump()
    values["run_dir"] = str(run_dir)
    for role in ROLES[:3]:
        values[role] |= {"engine": "scripted", "scripted": {"latency_s": 0.05}, "max_in_flight": 4, "chunk_rows": 2}
    for role in ROLES[3:]:
        values[role] |= {"engine": "scripted", "cpus": 0.5}
    values["reinforcement"] |= {"batches": 30, "checkpoint_every": 4, "max_staleness": max_staleness}
    values["preference_model"]["refresh"] = {"every": 5, "comparisons": 6, "probes": 4}
    values["resources"] |= {"cpus": 8, "object_store_gib": 0.3}
    return Config.model_validate(values)


def written(config: Config, directory: Path) -> tuple[str, Path]:
    directory.mkdir(exist_ok=True)
    path = directory / "config.yaml"
    path.write_text(dump_config(config))
    return str(path), Path(config.run_dir)


def progress(run_dir: Path) -> int:
    """Number of rows in the journal."""
    try:
        with closing(sqlite3.connect(f"file:{run_dir / 'journal.sqlite'}?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM records").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def kill_at(rows: int, config: str, run_dir: Path) -> bool:
    """Run until the journal holds ``rows`` rows, then SIGKILL the driver; False if the run ended first."""
    process = start("run", config)
    deadline = time.monotonic() + 300
    while process.poll() is None and progress(run_dir) < rows:
        assert time.monotonic() < deadline, f"{progress(run_dir)} of {rows} rows after 300 s"
        time.sleep(0.01)
    alive = process.poll() is None
    actors = actors_of(process) if alive else []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not still_running(actors), "Ray outlived its driver"
    return alive


def left_by(run_dir: Path) -> dict[str, Any]:
    """Everything that a run leaves behind, except for what is incidental."""
    tables = {}
    for name in (*TABLES, *REFRESHED):
        rows = pq.read_table(run_dir / f"{name}.parquet").to_pylist()
        assert len({row["id"] for row in rows}) == len(rows), name
        tables[name] = [{key: value for key, value in row.items() if key not in INCIDENTAL} for row in rows]
    digests = {m: (run_dir / "models" / m / DIGEST).read_text() for m in ("rl_cai", "preference_model_refreshed")}
    counts = json.loads((run_dir / "manifest.json").read_text())["rows"]
    return {**tables, **digests, "counts": counts}


@pytest.fixture(scope="module")
def undisturbed(tiny_world, tmp_path_factory) -> tuple[dict[str, Any], int]:
    path = tmp_path_factory.mktemp("undisturbed")
    config, run_dir = written(scripted(tiny_config_of(tiny_world, path / "run"), path / "run", 0), path)
    run = rlaif("run", config)
    assert run.returncode == 0, run.stderr
    return left_by(run_dir), progress(run_dir)


@pytest.mark.parametrize(("seed", "max_staleness"), [(0, 0), (1, 2)])
def test_a_run_that_is_killed_and_resumed_ends_as_if_nothing_had_happened(
    tiny_config, tmp_path, undisturbed, seed, max_staleness
):
    wanted, num_rows = undisturbed
    config, run_dir = written(scripted(tiny_config, tmp_path / f"killed-{seed}", max_staleness), tmp_path / "two")
    points = sorted(Random(seed).sample(range(1, num_rows), KILLS))
    killed = [kill_at(point, config, run_dir) for point in points]
    assert all(killed), f"ended before {points}: {killed}"
    last = rlaif("run", config)
    assert last.returncode == 0, last.stderr
    found = left_by(run_dir)
    for name, rows in found.items():
        assert rows == wanted[name], name
