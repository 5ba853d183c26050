"""What every node must have before a run starts engines there: its models, its run directory, a driver for its GPUs.

The driver resolves models to directories of its own file system, and all else that actors read or write is in the run
directory. A node where these are missing would say so when its first engine or rank has been scheduled, perhaps hours
into a run. So each node is asked first, by a task that is pinned to it. A node that joins later has not been asked:
what it lacks is the cause that its engine gives when it fails to open. Sources of rows, constitution and templates are
read by the driver alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from actors.cluster import remote
from actors.cluster.causes import describe_cause
from actors.cluster.placement import Claim
from actors.cluster.waiting import within
from rlaif.config.cards import MIN_CAPABILITY, MIN_DRIVER
from rlaif.config.contradictions import flatten, pools_of, trainers_of
from rlaif.config.keys import MODEL_KEYS, POLICY_KEY, SCORED_KEY
from rlaif.config.schema import Config, PoolSettings
from rlaif.config.trainer import Trainer
from rlaif.engines.models import model_version
from rlaif.errors import ModelError, UserError, WaitTimeoutError

#: Whose engines or ranks load a model first.
ROLE_OF_MODEL = {
    "generator.model": "generator",
    "labeller.model": "labeller",
    POLICY_KEY: "policy_trainer",
    SCORED_KEY: "preference_trainer",
}
NODE_TIMEOUT_S = 120.0  #: a node may have to start a process first, and read its Python from slow storage
GPU_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class NodeNeeds:
    """What a node must have. ``models``: configured values, such as ``generator.model=NAME``, and their directories;
    ``versions``: by directory, those that the driver sees. ``witness``: a file in ``run_dir`` that the driver wrote.
    ``cards``: whether it has GPUs for a role; ``bfloat16``: whether they compute in it."""

    models: Mapping[str, str]
    versions: Mapping[str, str]
    run_dir: str
    witness: str
    cards: bool
    bfloat16: bool


async def check_every_node(
    config: Config,
    claims: Sequence[Claim],
    paths: Mapping[str, Path],
    run_dir: Path,
    nodes: Sequence[Mapping[str, Any]],
) -> None:
    """Ask each of ``nodes``, as Ray lists them, for what the roles that it can hold need. Where Ray was started on this
    machine, only its GPUs are in question.

    ``paths``: the directories of models, by their configured values. Raises UserError with a line for each thing that a
    node lacks.
    """
    if config.resources.address is None:
        roles = [claim.role for claim in claims if claim.each.get("GPU")]
        mistakes = card_mistakes(_uses_bfloat16(config, roles)) if roles else []
    else:
        versions = {str(path): model_version(path) for path in paths.values() if path.is_dir()}
        with _witness(run_dir) as witness:
            run = (str(run_dir.absolute()), witness)
            asked = [_ask(node, _needs_of(config, claims, paths, versions, run, node)) for node in nodes]
            mistakes = [line for answer in await asyncio.gather(*asked) for line in answer]
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))


def _needs_of(
    config: Config,
    claims: Sequence[Claim],
    paths: Mapping[str, Path],
    versions: Mapping[str, str],
    run: tuple[str, str],
    node: Mapping[str, Any],
) -> NodeNeeds:
    """``run``: its directory, and the witness there."""
    held = [claim.role for claim in claims if _holds(node["Resources"], claim)]
    with_gpus = [claim.role for claim in claims if claim.role in held and claim.each.get("GPU")]
    configured = flatten(config)
    models = {
        f"{key}={configured[key]}": str(paths[configured[key]])
        for key in MODEL_KEYS
        if ROLE_OF_MODEL[key] in held and configured[key] in paths
    }
    return NodeNeeds(
        models=models,
        versions=versions,
        run_dir=run[0],
        witness=run[1],
        cards=bool(with_gpus),
        bfloat16=_uses_bfloat16(config, with_gpus),
    )


def _uses_bfloat16(config: Config, roles: Sequence[str]) -> bool:
    settings: dict[str, PoolSettings | Trainer] = {**pools_of(config), **trainers_of(config)}
    return any(settings[role].dtype == "bfloat16" for role in roles)


def _holds(resources: Mapping[str, float], claim: Claim) -> bool:
    return all(resources.get(name, 0.0) >= amount for name, amount in claim.piece.items())


async def _ask(node: Mapping[str, Any], needs: NodeNeeds) -> list[str]:
    """What one node lacks, a line each that begins with its address."""
    try:
        found = await within(NODE_TIMEOUT_S, remote.run_on(node["NodeID"], node_mistakes, needs), "an answer")
    except WaitTimeoutError as error:
        found = [f"{error}; is it overloaded, or its Python not that of the other nodes?"]
    except RayError as error:
        found = [f"cannot run this version of rlaif: {describe_cause(error)}"]
    return [f"node {node['NodeManagerAddress']}: {line}" for line in found]


@contextlib.contextmanager
def _witness(run_dir: Path) -> Iterator[str]:
    """The name of a file in the run directory, for the length of a ``with`` block; it holds its own name."""
    path = run_dir / f".node-{secrets.token_hex(8)}.unfinished"
    path.write_text(path.name)
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------- on a node
def node_mistakes(needs: NodeNeeds) -> list[str]:
    """What this node lacks, a line each."""
    return [*_model_mistakes(needs), *_run_dir_mistakes(needs), *(card_mistakes(needs.bfloat16) if needs.cards else ())]


def _model_mistakes(needs: NodeNeeds) -> Iterator[str]:
    for what, path in needs.models.items():
        try:
            version = model_version(path) if Path(path).is_dir() else None
        except OSError as error:
            yield f"{what}: {path} cannot be read: {error.strerror}"
            continue
        except ModelError as error:
            yield f"{what}: {error}"
            continue
        if version is None:
            yield f"{what}: no such directory: {path}; {_WAY}"
        elif version != needs.versions[path]:
            yield f"{what}: {path} holds another model than on the driver's node ({needs.versions[path]}); {_WAY}"


_WAY = "put it on storage that all nodes share; for hub names, start Ray on every node with HF_HOME there"


def _run_dir_mistakes(needs: NodeNeeds) -> Iterator[str]:
    directory = Path(needs.run_dir)
    try:
        is_shared = (directory / needs.witness).read_text() == needs.witness
    except OSError:
        is_shared = False
    if not is_shared:
        way = "choose a place on storage that all nodes share"
        yield f"run_dir={directory}: is not there, or is not the one that the driver writes; {way}"
        return
    own = directory / f"{needs.witness.removesuffix('.unfinished')}-{secrets.token_hex(8)}.unfinished"
    try:
        own.write_text(own.name)
        own.unlink()
    except OSError as error:
        who, way = f"user {os.geteuid()}", "mount it for writing, as the same user"
        yield f"run_dir={directory}: {who} cannot write there: {error.strerror}; {way}"


def card_mistakes(bfloat16: bool) -> list[str]:
    """What is wrong with this node's GPUs and their driver; nothing where ``nvidia-smi`` is not at hand."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=GPU_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"nvidia-smi does not answer: {error}; its GPUs cannot be used"]
    if done.returncode != 0:
        return [f"nvidia-smi fails: {(done.stderr or done.stdout).strip()}; its GPUs cannot be used"]
    mistakes = []
    for name, driver, capability in csv.reader(done.stdout.splitlines(), skipinitialspace=True):
        if _numbers(driver) < MIN_DRIVER:
            least = "{}.{}.{:02}".format(*MIN_DRIVER)
            mistakes.append(
                f"NVIDIA driver {driver} is too old for the CUDA 13 builds of torch and vLLM; install {least} or newer"
            )
        if bfloat16 and _numbers(capability) < MIN_CAPABILITY:
            mistakes.append(
                f"{name} (compute capability {capability}) does not compute in bfloat16; use cards of 8.0 or more "
                "(Ampere and later), or dtype=float32 for the roles on this node"
            )
    return list(dict.fromkeys(mistakes))


def _numbers(version: str) -> tuple[int, ...]:
    """Those of a version; none where it is not known, such as ``[N/A]``, which is older than all."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
