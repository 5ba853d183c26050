"""Where ranks meet: a store that only processes with Ray's token reach."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import ray
import torch.distributed

from actors.trainer.process_group import RendezvousStore, interface_of, join_ranks, torch_config
from actors.trainer.rendezvous import Rendezvous
from rlaif.config.trainer import Trainer
from rlaif.errors import RunError

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def rendezvous():
    handle = ray.remote(Rendezvous).options(num_cpus=0).remote()
    yield handle
    ray.kill(handle)


def store(rendezvous: Any, seconds: float = 30.0) -> RendezvousStore:
    return RendezvousStore(rendezvous, timedelta(seconds=seconds))


class Rank:
    """In a process of its own."""

    def __init__(self, rendezvous: Any, rank: int, num_ranks: int) -> None:
        join_ranks(rendezvous, rank, num_ranks, "gloo", 60)

    def sum_of(self, number: float) -> float:
        value = torch.tensor([number])
        torch.distributed.all_reduce(value, group=torch.distributed.new_group())
        return float(value)

    def variables(self) -> dict[str, str]:
        return {name: os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in os.environ}


def test_ranks_that_meet_in_it_exchange_numbers(rendezvous):
    kind = ray.remote(Rank).options(num_cpus=0)
    ranks = [kind.remote(rendezvous, rank, 3) for rank in range(3)]
    assert ray.get([rank.sum_of.remote(10.0**i) for i, rank in enumerate(ranks)]) == [111.0] * 3
    assert ray.get(ranks[0].variables.remote()) == {}, "torch's own store was started"
    for rank in ranks:
        ray.kill(rank)


def test_it_keeps_bytes_and_adds_up(rendezvous):
    first, second = store(rendezvous), store(rendezvous)
    first.set("key", bytes(range(256)))
    assert second.get("key") == bytes(range(256))
    assert [first.add("sum", 3), second.add("sum", -1), int(first.get("sum"))] == [3, 2, 2]
    assert first.check(["key", "sum"]) and not first.check(["key", "nothing"])


async def test_what_is_added_at_the_same_time_is_all_counted():
    meeting = Rendezvous()
    waiting = [asyncio.create_task(meeting.when_set([f"sum-{i}", "never"], 0.2)) for i in range(20)]

    async def add(turns: int) -> int:
        for _ in range(turns):  # while those that wait are woken
            await asyncio.sleep(0)
        return await meeting.add("sum", 1)

    totals = await asyncio.gather(*(add(number // 4) for number in range(200)))
    assert sorted(totals) == list(range(1, 201))
    assert await asyncio.gather(*waiting) == [None] * 20


def test_torch_reaches_it_behind_a_prefix(rendezvous):
    inner = store(rendezvous)
    prefixed = torch.distributed.PrefixStore("group", inner)
    prefixed.set("key", b"value")
    assert prefixed.get("key") == inner.get("group/key") == b"value"


def test_who_asks_early_waits(rendezvous):
    late = threading.Timer(0.3, lambda: store(rendezvous).set("late", b"1"))
    late.start()
    store(rendezvous).wait(["late"])
    assert store(rendezvous).get("late") == b"1"
    late.join()


def test_what_nobody_sets_is_named(rendezvous):
    started = time.monotonic()
    with pytest.raises(LookupError, match=r"no rank has set nothing within 0\.2 s"):
        store(rendezvous, 0.2).get("nothing")
    with pytest.raises(LookupError, match="nothing"):
        store(rendezvous).wait(["nothing"], timedelta(seconds=0.2))
    assert time.monotonic() - started < 20


def test_ranks_on_gpus_speak_nccl():
    assert torch_config(Trainer(gpus=1)).backend == "nccl"


def test_no_collective_ends_before_the_silence_that_the_driver_looks_for(rendezvous):
    assert torch_config(Trainer(silence_timeout_s=7200)).timeout_s > 7200
    timeouts = ray.get(ray.remote(num_cpus=0)(timeouts_of_groups).remote(rendezvous, 77))
    assert timeouts == {timedelta(seconds=77)}, "groups that libraries make, too"


def timeouts_of_groups(rendezvous: Any, timeout_s: int) -> set[timedelta]:
    join_ranks(rendezvous, 0, 1, "gloo", timeout_s)
    groups = (torch.distributed.group.WORLD, torch.distributed.new_group([0]))
    return {group._get_backend(torch.device("cpu")).options._timeout for group in groups}


def test_gloo_uses_the_interface_by_which_ray_knows_the_node():
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(RunError, match=r"192\.0\.2\.1; set GLOO_SOCKET_IFNAME"):
        interface_of("192.0.2.1")
