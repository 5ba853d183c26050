"""Checks of ``cluster/`` without Kubernetes: manifests, configuration, lock and command line agree."""

from __future__ import annotations

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
from rlaif.config.cards import MIN_DRIVER
from rlaif.config.files import load_config

ROOT = Path(__file__).parents[2]
CONFIG = load_config(ROOT / "configs" / "multi_node.yaml")
VOLUME, CLUSTER, POLICY = yaml.safe_load_all((ROOT / "cluster" / "raycluster.yaml").read_text())
IMAGE = (ROOT / "cluster" / "Dockerfile").read_text()
JOB = yaml.safe_load((ROOT / "cluster" / "rayjob.yaml").read_text())
GROUPS = CLUSTER["spec"]["workerGroupSpecs"]


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return only


def node(group: dict[str, Any]) -> dict[str, float]:
    """Ray's resources on one pod of a group."""
    limits = container(group)["resources"]["limits"]
    return {"CPU": float(limits["cpu"]), "GPU": float(limits["nvidia.com/gpu"])}


def nodes() -> list[dict[str, float]]:
    return [node(group) for group in GROUPS for _ in range(group["replicas"])]


def test_the_worker_groups_have_what_the_configuration_declares() -> None:
    have: Counter[str] = Counter()
    for each in nodes():
        have.update(each)
    declared = CONFIG.resources
    assert dict(have) == {"CPU": declared.cpus, "GPU": declared.gpus, **declared.custom}


def test_a_pod_has_the_memory_that_the_configuration_declares() -> None:
    have = {container(group)["resources"]["limits"]["memory"] for group in GROUPS}
    assert have == {f"{CONFIG.resources.node.memory_gib:g}Gi"}
    assert {node(group)["GPU"] for group in GROUPS} == {CONFIG.resources.node.gpus}


def test_a_host_holds_whole_engines_and_the_ranks_that_reinforce() -> None:
    (group,) = GROUPS
    gpus = node(group)["GPU"]
    for role in ("generator", "labeller", "scorer"):
        pool = getattr(CONFIG, role)
        assert gpus % (pool.gpus * pool.tensor_parallel) == 0, "an engine would lie on two hosts"
    for role in ("policy_trainer", "preference_trainer"):
        assert getattr(CONFIG, role).ranks * getattr(CONFIG, role).gpus == gpus


def test_the_plan_finds_a_node_for_every_engine() -> None:
    check_nodes(plan(CONFIG, phases_of(CONFIG)), nodes())


def test_versions_are_those_of_the_lock() -> None:
    lock = (ROOT / "requirements" / "gpu.lock").read_text()
    (locked,) = re.findall(r"^ray(?:\[.*\])?==(\S+)", lock, flags=re.MULTILINE)
    assert CLUSTER["spec"]["rayVersion"] == locked
    images = {container(group)["image"] for group in (CLUSTER["spec"]["headGroupSpec"], *GROUPS)}
    assert {image.rpartition(":")[2] for image in images} == {locked}


def test_the_image_has_the_cuda_of_the_locked_torch_and_no_other() -> None:
    lock = (ROOT / "requirements" / "gpu.lock").read_text()
    (of_torch,) = re.findall(r"^cuda-toolkit==(\d+\.\d+)", lock, flags=re.MULTILINE)  # which torch pins to its own
    major = of_torch.partition(".")[0]
    assert f"nvidia-nccl-cu{major}==" in lock and f"nvidia-cudnn-cu{major}==" in lock
    (base,) = re.findall(r"^FROM (\S+)", IMAGE, flags=re.MULTILINE)
    assert re.findall(r"cu(?:da:?)?(\d+)", base) in ([], [major]), "a toolkit of another version"
    assert f'NVIDIA_REQUIRE_CUDA="cuda>={of_torch}"' in IMAGE
    assert MIN_DRIVER[0] == {"13": 580}[major], "what NVIDIA's CUDA compatibility tables say of that version"


def test_the_image_has_a_python_of_the_lock_with_headers_and_compiler_and_installs_the_lock() -> None:
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)-bookworm$", IMAGE, flags=re.MULTILINE)  # -slim has neither
    assert python in ("3.11", "3.12", "3.13")
    assert "--require-hashes -r /opt/rlaif/requirements/gpu.lock" in IMAGE


def test_every_pod_mounts_the_storage_that_holds_the_run() -> None:
    for group in (CLUSTER["spec"]["headGroupSpec"], *GROUPS):
        mounts = {mount["name"]: mount["mountPath"] for mount in container(group)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == VOLUME["metadata"]["name"]
        assert Path(CONFIG.run_dir).is_relative_to(mounts["shared"])
        environment = {each["name"]: each.get("value") for each in container(group)["env"]}
        assert Path(environment["HF_HOME"]).is_relative_to(mounts["shared"])
    assert VOLUME["spec"]["accessModes"] == ["ReadWriteMany"]


def test_every_pod_has_shared_memory_for_ray_and_nccl() -> None:
    for group in (CLUSTER["spec"]["headGroupSpec"], *GROUPS):
        mounts = {mount["mountPath"]: mount["name"] for mount in container(group)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory"}


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
