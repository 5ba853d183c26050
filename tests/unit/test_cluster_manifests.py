"""Checks of ``cluster/`` without Kubernetes: manifests, configuration, lock and command line agree."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from actors.cli.__main__ import app
from actors.cluster.placement import check_nodes, phases_of, plan
from actors.submit.submit import STOP_S
from rlaif.config.files import load_config

ROOT = Path(__file__).parents[2]
CONFIG = load_config(ROOT / "configs" / "multi_node.yaml")
VOLUME, CLUSTER, POLICY = yaml.safe_load_all((ROOT / "cluster" / "raycluster.yaml").read_text())
JOB = yaml.safe_load((ROOT / "cluster" / "rayjob.yaml").read_text())
GROUPS = CLUSTER["spec"]["workerGroupSpecs"]
POOLS = ("generator", "labeller", "scorer", "policy_trainer", "preference_trainer")


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return only


def node(group: dict[str, Any]) -> dict[str, float]:
    """Ray's resources on one pod of a group; its start parameters pass through a shell."""
    (resources,) = shlex.split(group["rayStartParams"]["resources"])
    limits = container(group)["resources"]["limits"]
    return {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"]), **json.loads(resources)}


def nodes() -> list[dict[str, float]]:
    return [node(group) for group in GROUPS for _ in range(group["replicas"])]


def test_the_worker_groups_have_what_the_configuration_declares() -> None:
    have: Counter[str] = Counter()
    for each in nodes():
        have.update(each)
    declared = CONFIG.resources
    assert dict(have) == {"CPU": declared.cpus, "GPU": declared.gpus, **declared.custom}


def test_each_role_asks_for_the_resource_of_one_group_and_can_grow_to_its_maximum_there() -> None:
    group_of = {name: group for group in GROUPS for name in node(group) if name.endswith("_node")}
    for role in POOLS:
        settings = getattr(CONFIG, role)
        (resource,) = settings.placement
        group = group_of[resource]
        trains = role.endswith("_trainer")
        most, gpus = (
            (settings.ranks, settings.gpus) if trains else (settings.max, settings.gpus * settings.tensor_parallel)
        )
        assert most * settings.placement[resource] <= group["replicas"] * node(group)[resource]
        assert node(group)[resource] * gpus <= node(group)["GPU"], "more engines than a pod has GPUs for"


def test_the_plan_finds_a_node_for_every_engine() -> None:
    check_nodes(plan(CONFIG, phases_of(CONFIG)), nodes())


def test_versions_are_those_of_the_lock() -> None:
    lock = (ROOT / "requirements" / "gpu.lock").read_text()
    (locked,) = re.findall(r"^ray(?:\[.*\])?==(\S+)", lock, flags=re.MULTILINE)
    assert CLUSTER["spec"]["rayVersion"] == locked
    images = {container(group)["image"] for group in (CLUSTER["spec"]["headGroupSpec"], *GROUPS)}
    assert {image.rpartition(":")[2] for image in images} == {locked}
    assert f"FROM rayproject/ray:{locked}-py311-gpu\n" in (ROOT / "cluster" / "Dockerfile").read_text()


def test_every_pod_mounts_the_storage_that_holds_the_run() -> None:
    for group in (CLUSTER["spec"]["headGroupSpec"], *GROUPS):
        (mount,) = container(group)["volumeMounts"]
        (volume,) = group["template"]["spec"]["volumes"]
        assert volume["name"] == mount["name"]
        assert volume["persistentVolumeClaim"]["claimName"] == VOLUME["metadata"]["name"]
        assert Path(CONFIG.run_dir).is_relative_to(mount["mountPath"])
    assert VOLUME["spec"]["accessModes"] == ["ReadWriteMany"]


def test_strangers_are_kept_out() -> None:
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}
    pods = {"matchLabels": {"ray.io/cluster": CLUSTER["metadata"]["name"]}}
    policy = POLICY["spec"]
    assert policy["podSelector"] == pods
    assert policy["policyTypes"] == ["Ingress"]
    within, jobs = policy["ingress"]
    assert within == {"from": [{"podSelector": pods}]}
    assert jobs == {"ports": [{"port": 8265}]}, "what asks for a token"


def test_the_job_is_a_command_that_parses_on_that_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert JOB["spec"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    word, program, command, config, *overrides = shlex.split(JOB["spec"]["entrypoint"])
    assert (word, program, command) == ("exec", "rlaif", "run")
    assert load_config(config, overrides) == CONFIG
    planned = CliRunner().invoke(app, ["plan", config, *overrides])
    assert planned.exit_code == 0, planned.output
    environment = yaml.safe_load(JOB["spec"]["runtimeEnvYAML"])["env_vars"]
    assert environment == {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}
