"""What a run on one machine listens on: loopback only, whichever of its processes listens."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import torch.distributed

from actors.pool.pool import RayPools
from actors.trainer.trainer import RayTrainers
from rlaif.config.schema import Config, Reinforcement
from rlaif.config.trainer import Trainer
from rlaif.jobs import PPOJob
from tests.tiny_models import MAX_LENGTH, saved, tiny_lm

pytestmark = pytest.mark.usefixtures("cluster")


def listeners(root: psutil.Process) -> Iterator[tuple[str, str, int]]:
    """(process, address, port) of everything that ``root`` and the processes below it listen on."""
    for process in [root, *root.children(recursive=True)]:
        try:
            name, connections = process.name(), process.net_connections("inet")
        except psutil.Error:  # it has ended meanwhile
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                yield (name, *connection.laddr)


def exposed(found: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Those that other machines can reach."""
    return [each for each in found if not ip_address(each[1].removeprefix("::ffff:")).is_loopback]


def test_a_listener_on_every_interface_is_seen() -> None:
    before = exposed(list(listeners(psutil.Process())))
    store = torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True)
    found = exposed(list(listeners(psutil.Process())))
    assert before == []
    assert [port for _, _, port in found] == [store.port]


async def test_engines_and_ranks_listen_on_loopback_only(tmp_path: Path) -> None:
    policy = saved(tiny_lm(0, tied=True), tmp_path / "policy")
    engine = {"engine": "vllm", "model": policy, "cpus": 0.5, "kv_cache_gib": 0.25, "max_length": MAX_LENGTH}
    pool = await RayPools(Config.model_validate({"generator": engine})).open("generator", Path(policy))
    trainer, settings = Trainer(cpus=0.5, ranks=2), Reinforcement(batch_size=4, minibatch_size=2)
    job = PPOJob(policy=policy, preference_model=None, settings=settings, temperature=1.0, trainer=trainer, seed=5)
    learner = await RayTrainers(tmp_path).policy_learner(job)
    try:
        found = list(listeners(psutil.Process()))
    finally:
        await learner.close()
        await pool.close()
    print(*sorted(found), sep="\n")
    names = {name for name, _, _ in found}
    for kind in ("ray::RayTrainWor", "ray::EngineActor", "raylet", "gcs_server"):
        assert any(name.startswith(kind) for name in names), f"{kind} was not seen"
    assert exposed(found) == []
