"""Whole runs of shipped configurations with scripted engines and trainers: how many GPUs are held in each phase."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from itertools import dropwhile, pairwise
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.cluster.occupancy import busy_gpus
from actors.cluster.placement import phases_of, plan
from actors.driver import drive
from actors.work import PIPELINE
from rlaif.config.files import load_config
from rlaif.config.schema import Config
from rlaif.stages.run import Silent
from tests.conftest import tiny_config_of
from tests.fake_gpus.conftest import GPUS, NODES, joined_by
from tests.tiny_models import MAX_LENGTH

CONFIGS = Path(__file__).parents[2] / "configs"
ROLES = ("generator", "labeller", "scorer", "policy_trainer", "preference_trainer")
ON_HOSTS = ("engines", "min", "max", "gpus", "tensor_parallel", "ranks", "fit_ranks")  #: of a role, what is tested
#: Of multi_node, on three hosts in place of eight.
SMALLER = {"generator": {"min": 1}, "labeller": {"min": 1}, "scorer": {"min": 1}}


def scripted_config(name: str, tiny_world: dict[str, str], run_dir: Path, address: str, gpus: int) -> Config:
    """A shipped configuration's engines and ranks, by role, on scripted actors and tiny data."""
    shipped = load_config(CONFIGS / f"{name}.yaml").model_dump()
    values = tiny_config_of(tiny_world, run_dir).model_dump()
    for role in ROLES:
        values[role] |= {key: shipped[role][key] for key in ON_HOSTS if key in shipped[role]}
        values[role] |= {"engine": "scripted", "cpus": 0.1, **(SMALLER.get(role, {}) if name == "multi_node" else {})}
    values["preference_model"]["refresh"] |= {
        "every": 1 if shipped["preference_model"]["refresh"]["every"] else 0,
        "comparisons": 8,
    }
    for fit in (values["supervision"]["optimization"], values["preference_model"]["fit"]):
        fit["batch_size"] = 16
    values["preference_model"]["pretraining"]["batch_size"] = 16
    values["labelling"]["gate"]["override"] = ["flip_rate", "order_correlation", "invalid_rate", "gold_accuracy"]
    values["critique_revision"] |= {"max_revision_tokens": 64, "max_critique_tokens": 64}
    values["sampling"]["max_tokens"] = 64
    values["supervision"]["max_length"] = values["preference_model"]["max_length"] = MAX_LENGTH
    values["resources"] = {"address": address, "cpus": 64, "gpus": gpus}
    return Config.model_validate(values)


async def held_by_phase(config: Config) -> dict[str, float]:
    """The most GPUs that were held at once in each phase of a run, which is carried out here; once those of the phase
    before, whose processes take a moment to end, were given back."""
    samples: list[tuple[float, float]] = []

    async def watch() -> None:
        while True:
            if ray.is_initialized():
                held = ray.cluster_resources().get("GPU", 0) - ray.available_resources().get("GPU", 0)
                samples.append((time.time(), held))
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        run_dir = await drive(config, Silent(), PIPELINE, in_process=False)
    finally:
        watching.cancel()
    lines = map(json.loads, (run_dir / "events.jsonl").read_text().splitlines())
    began = [(line["time"], line["phase"]) for line in lines if line["event"] == "phase_began"]
    assert began
    spans = pairwise([*began, (time.time(), "end")])
    wanted = planned(config)
    return {
        phase: most_held([held for at, held in samples if start <= at < end], wanted[phase])
        for (start, phase), (end, _) in spans
        if phase in wanted
    }


def most_held(samples: list[float], wanted: float) -> float:
    return max(dropwhile(lambda held: held > wanted, samples), default=0.0)


def planned(config: Config) -> Mapping[str, float]:
    return {phase.name: busy_gpus(phase) for phase in plan(config, phases_of(config)).phases}


@pytest.mark.parametrize(
    ("name", "gpus", "idle"),
    [
        ("eight_gpu", GPUS, set()),
        ("multi_node", NODES * GPUS, {"supervise", "fit_preference_model"}),  # the ranks of a fit stay on one host
    ],
)
async def test_every_phase_holds_the_gpus_that_the_plan_says(
    name: str, gpus: int, idle: set[str], hosts: Cluster, tiny_world: dict[str, str], tmp_path: Path
) -> None:
    config = scripted_config(name, tiny_world, tmp_path / "run", hosts.address, gpus)
    held = await held_by_phase(config)
    wanted = planned(config)
    assert held == wanted
    assert {phase for phase in wanted if held[phase] < 0.9 * gpus} == idle
    with joined_by(hosts):  # and in the end, all are given back
        async with asyncio.timeout(60):
            while ray.available_resources().get("GPU") != NODES * GPUS:
                await asyncio.sleep(0.2)
