"""``rlaif submit`` to a real cluster of two hosts: what it returns, what it leaves behind, what a cut link costs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlaif.config.files import dump_config
from rlaif.config.schema import Config
from tests.conftest import write_lines
from tests.two_hosts.hosts import BIN, Cluster

CUT_S = 60.0
ROWS_BEFORE = 20  #: labels to wait for before disturbing the run
RAY_OWN = ("JobSupervisor", "_StatsActor", "_AutoscalingCoordinatorActor")  #: Ray's own actors, which belong to no job


def environment(cluster: Cluster, **changes: str) -> dict[str, str]:
    """Environment of a user who has the cluster's token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return own | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(cluster.token)} | changes


def start(cluster: Cluster, *arguments: str, **changes: str) -> subprocess.Popen:
    """Start ``rlaif submit`` on this machine, outside both hosts; Ctrl-C works as in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "actors.cli", "submit", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(cluster, **changes),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def submit(cluster: Cluster, *arguments: str, **changes: str) -> tuple[int, str, str]:
    """Run ``rlaif submit`` to its end; returns exit code, stdout and stderr."""
    process = start(cluster, *arguments, **changes)
    stdout, stderr = process.communicate(timeout=900)
    return process.returncode, stdout, stderr


@pytest.fixture
def settings(tiny_config, tmp_path) -> dict[str, Any]:
    """The whole method with tiny models to train and scripted engines; labellers are slow and on the second host."""
    values = tiny_config.model_dump(mode="json")
    for role in ("generator", "labeller", "scorer"):
        values[role] |= {"engine": "scripted", "cpus": 0, "max_length": 1024, "placement": {f"{role}_node": 0.5}}
    values["labeller"] |= {"min": 2, "max": 2, "chunk_rows": 2, "max_in_flight": 4, "scripted": {"latency_s": 0.5}}
    for role in ("policy_trainer", "preference_trainer"):
        values[role]["placement"] = {"trainer_node": 0.5}
    nodes = {"generator_node": 1, "labeller_node": 1, "scorer_node": 1, "trainer_node": 1}
    values["resources"] |= {"cpus": 8, "custom": nodes}
    values["run_dir"] = str(tmp_path / "run")
    prompts = [{"prompt": f"How do I do thing {i}?"} for i in range(120)]
    values["data"]["red_team"] = write_lines(tmp_path / "red_team.jsonl", [*prompts, {"no_prompt": 1}])
    return values


@pytest.fixture
def config(settings, tmp_path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(Config.model_validate(settings)))
    return str(path)


# ------------------------------------------------------------------------------------------- before it is sent
def test_a_plan_that_the_cluster_cannot_hold_ends_with_2_and_names_the_role(cluster, config):
    started, before = time.monotonic(), cluster.ask("jobs/")
    lacking = ["labeller.placement.judge_node=1", "resources.custom.judge_node=2"]
    code, _, stderr = submit(cluster, config, *lacking, "--address", cluster.url)
    assert code == 2
    assert "judge_node: 'label' needs 2 at once, 0 available" in stderr and "labeller: 2 x 1 = 2" in stderr
    code, _, stderr = submit(cluster, config, "labeller.cpus=1", "--address", cluster.url)
    assert code == 2
    assert "labeller: one engine needs CPU 1, labeller_node 0.5 on one node, and no node has that" in stderr
    assert time.monotonic() - started < 60, "both must end within seconds, even on a busy machine"
    assert cluster.ask("jobs/") == before, "something was sent"


def test_mistakes_end_with_2_and_one_clear_message(cluster, config):
    at, before = ("--address", cluster.url), cluster.ask("jobs/")
    for arguments, changes, told in (
        ((*at, "sampling.max_tokens=0"), {}, "sampling.max_tokens=0"),
        ((*at, "run_dir=runs/one"), {}, "run_dir=runs/one: the nodes of a cluster do not see it"),
        (at, {"RAY_AUTH_TOKEN": "not-the-token"}, "the cluster refuses this token"),
        (at, {"RAY_AUTH_MODE": "disabled"}, "the cluster requires a token; set RAY_AUTH_MODE=token"),
        (("--address", cluster.url.replace(":8265", ":9")), {}, "connection failed"),
    ):
        code, stdout, stderr = submit(cluster, config, *arguments, **changes)
        assert code == 2, stderr
        assert told in stderr and "Traceback" not in stderr + stdout
    assert cluster.ask("jobs/") == before


def test_a_mistake_that_only_the_cluster_can_see_ends_with_2_too(cluster, config):
    code, stdout, stderr = submit(cluster, config, "data.red_team=/nowhere.jsonl", "--address", cluster.url)
    assert code == 2, stderr
    assert "data.red_team=/nowhere.jsonl: no such file" in stdout


def test_a_node_that_lacks_a_model_or_cannot_use_the_run_directory_ends_with_2_and_is_named(cluster, config, settings):
    model, run_dir = Path(settings["labeller"]["model"]), Path(settings["run_dir"])
    run_dir.mkdir()
    node = f"node {cluster.worker.address}: "
    for directory, options, told in (
        (model, ["-t tmpfs none"], f"{node}labeller.model={model}: {model} holds another model than on the driver's"),
        (model.parent, ["-t tmpfs none"], f"{node}labeller.model={model}: no such directory: {model}; put it on"),
        (
            run_dir,
            ["-t tmpfs none"],
            f"{node}run_dir={run_dir}: is not there, or is not the one that the driver writes",
        ),
        (run_dir, [f"--bind {run_dir}", "-o remount,bind,ro"], f"{node}run_dir={run_dir}: user 0 cannot write there"),
    ):
        with cluster.worker.mounted(directory, *options):
            code, stdout, stderr = submit(cluster, config, "--address", cluster.url)
        assert code == 2, stderr
        assert told in " ".join(stdout.split()) and "Traceback" not in stdout
        assert f"node {cluster.head.address}" not in stdout, "the other node has all"
        assert "EngineActor" not in {actor["class_name"] for actor in living(cluster)}


# ----------------------------------------------------------------------------------------------------- the run
def test_a_stopped_job_leaves_no_actor_and_a_cut_link_loses_no_row(cluster, config, settings):
    """One run for everything, as each takes minutes: stopped while labelling, resubmitted, cut off while labelling."""
    run_dir = Path(settings["run_dir"])
    earlier = {actor["actor_id"] for actor in cluster.actors()}
    process = start(cluster, config, "--address", cluster.url)
    wait_until(lambda: num_labels(run_dir) >= ROWS_BEFORE, "some labels", 400)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and "the job goes on" in stderr and "Traceback" not in stderr
    name = stderr.split()[0]
    assert f"stop it: ray job stop {name} --address {cluster.url}" in stderr
    assert {"EngineActor"} <= {actor["class_name"] for actor in living(cluster)}
    stop = [BIN / "ray", "job", "stop", name, "--address", cluster.url]
    subprocess.run(stop, env=environment(cluster), check=True, capture_output=True, timeout=120)
    assert cluster.ask(f"jobs/{name}")["status"] == "STOPPED"
    wait_until(lambda: not living(cluster) and not left_behind(cluster), "actors to end", 30)
    assert not (run_dir / "driver.json").exists()
    before = num_labels(run_dir)
    assert before < 120

    process = start(cluster, config, "--address", cluster.url)
    wait_until(lambda: num_labels(run_dir) >= before + ROWS_BEFORE, "more labels", 400)
    assert num_labels(run_dir) < 120
    cut = cluster.hosts_of_nodes()
    cluster.worker.set_link("down")
    time.sleep(CUT_S)
    assert num_labels(run_dir) < 120
    cluster.worker.set_link("up")
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stdout[-4000:] + stderr
    assert "preferences" in stdout and "report: " in stdout, "the log was not followed"
    assert set(cluster.hosts_of_nodes()) - set(cut), "the second host's node was not lost"
    check_rows(run_dir)
    check_placement(cluster, [actor for actor in cluster.actors() if actor["actor_id"] not in earlier])

    code, stdout, stderr = submit(cluster, config, "--address", cluster.url, "--no-wait")  # nothing left to do
    assert code == 0, stderr
    wait_until(lambda: cluster.ask(f"jobs/{stdout.strip()}")["status"] == "SUCCEEDED", "the last job", 120)
    check_rows(run_dir)


def check_rows(run_dir: Path) -> None:
    """Rows in = rows out + quarantined for every kind of row, and each label exactly once."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert len(manifest["stages"]) == 7
    assert all(rows["rows_in"] == rows["rows_out"] + rows["quarantined"] for rows in manifest["rows"].values())
    assert manifest["rows"]["prompts_red_team"] | {"state": ""} == {
        "state": "",
        "rows_in": 121,
        "rows_out": 120,
        "quarantined": 1,
    }
    assert manifest["rows"]["preferences"]["rows_out"] == 120
    ids = [id for path in (run_dir / "preferences").glob("*.parquet") for id in pq.read_table(path)["id"].to_pylist()]
    assert len(ids) == len(set(ids)) == 120


def check_placement(cluster: Cluster, actors: list[dict[str, Any]]) -> None:
    """Labellers, and no other actors of ours, are on the second host."""
    hosts = cluster.hosts_of_nodes()
    places = {(actor["class_name"], actor["name"].split("-")[0]): set() for actor in actors}
    for actor in actors:
        if actor["node_id"] in hosts:  # it was placed
            places[actor["class_name"], actor["name"].split("-")[0]].add(hosts[actor["node_id"]])
    assert places["EngineActor", "labeller"] == {cluster.worker}
    for role in (("EngineActor", "generator"), ("EngineActor", "scorer"), ("RayTrainWorker", ""), ("Mailbox", "")):
        assert places[role] == {cluster.head}, role


def num_labels(run_dir: Path) -> int:
    if not (run_dir / "journal.sqlite").exists():
        return 0
    with closing(sqlite3.connect(run_dir / "journal.sqlite")) as db:
        try:
            return db.execute("SELECT count(*) FROM records WHERE kind = 'preferences'").fetchone()[0]
        except sqlite3.OperationalError:  # the file exists before its tables do
            return 0


def living(cluster: Cluster) -> list[dict[str, Any]]:
    """Live actors of jobs."""
    return [a for a in cluster.actors() if a["state"] != "DEAD" and a["class_name"] not in RAY_OWN]


def left_behind(cluster: Cluster) -> list[str]:
    """Processes of engines, ranks and drivers on either host, whether Ray knows of them or not."""
    own = ("EngineActor", "RayTrainWorker", "Mailbox", "actors.cli")
    lines = [" ".join(p.cmdline()) for host in (cluster.head, cluster.worker) for p in host.processes()]
    return [line for line in lines if any(name in line for name in own)]


def wait_until(found: Callable[[], bool], what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.2)
