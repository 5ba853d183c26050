"""How the ranks of a fit form their process group: as Ray Train has it, but for where they meet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import torch.distributed
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from torch.distributed import distributed_c10d

from actors.cluster import remote
from actors.cluster.loopback import stay_on_loopback
from actors.trainer.rendezvous import Rendezvous
from rlaif.config.trainer import Trainer
from rlaif.errors import RunError

#: Longest that a rank waits for others in one collective, or at their meeting place. They may have long work of their
#: own (loading, saving), of which only they give signs: no limit here could tell that from a hang. Dead ranks are
#: noticed by Ray, silent ones by ``Fit``, and either ends those that wait. This is for ranks that all of that forgot.
COLLECTIVE_TIMEOUT_S = 24 * 3600


def torch_config(trainer: Trainer) -> RanksConfig:
    on_gpus = trainer.gpus > 0 and trainer.engine != "scripted"  # scripted ranks hold GPUs and compute nothing on them
    backend = "nccl" if on_gpus else "gloo"
    return RanksConfig(backend=backend, timeout_s=COLLECTIVE_TIMEOUT_S, share_a_node=trainer.shares_a_node)


@dataclass
class RanksConfig(TorchConfig):
    """Ray Train's configuration, for ranks that meet in a ``Rendezvous``."""

    share_a_node: bool = False

    @property
    def backend_cls(self) -> type[RanksBackend]:
        return RanksBackend


class RanksBackend(_TorchBackend):
    """Runs in Ray Train's controller."""

    _rendezvous: Any = None

    def on_start(self, worker_group: Any, backend_config: RanksConfig) -> None:
        """Let ranks that have just been started, or restarted, form their process group."""
        self._forget()
        here = remote.on_node(remote.this_node())
        self._rendezvous = remote.start_actor(Rendezvous, num_cpus=0, scheduling_strategy=here)
        worker_group.execute(_set_torch_distributed_env_vars)
        num_ranks = len(worker_group)
        settings = (backend_config.backend, backend_config.timeout_s, backend_config.share_a_node)
        joined = [
            worker_group.execute_single_async(rank, join_ranks, self._rendezvous, rank, num_ranks, *settings)
            for rank in range(num_ranks)
        ]
        ray.get(joined)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_shutdown(worker_group, backend_config)
        self._forget()

    def _forget(self) -> None:
        if self._rendezvous is not None:
            remote.kill_actor(self._rendezvous)
            self._rendezvous = None


class RendezvousStore(torch.distributed.Store):
    """A rank's side of ``rendezvous``, as torch asks for it: these five methods, from any of its threads.

    What torch's process groups need of a store is stated by ``torch.distributed.elastic``'s own ``EtcdStore``.
    """

    def __init__(self, rendezvous: Any, timeout: timedelta) -> None:
        super().__init__()
        self._rendezvous = rendezvous
        self._timeout = timeout

    def set(self, key: str, value: str | bytes) -> None:
        ray.get(self._rendezvous.set.remote(key, value.encode() if isinstance(value, str) else bytes(value)))

    def get(self, key: str) -> bytes:
        """Raises LookupError when nobody sets ``key`` in time."""
        return self._when_set([key], self._timeout)[0]

    def add(self, key: str, amount: int) -> int:
        total: int = ray.get(self._rendezvous.add.remote(key, amount))
        return total

    def check(self, keys: list[str]) -> bool:
        found: bool = ray.get(self._rendezvous.has.remote(keys))
        return found

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Raises LookupError when not all are set in time."""
        self._when_set(keys, timeout or self._timeout)

    def _when_set(self, keys: list[str], timeout: timedelta) -> list[bytes]:
        values: list[bytes] | None = ray.get(self._rendezvous.when_set.remote(keys, timeout.total_seconds()))
        if values is None:
            raise LookupError(f"no rank has set {', '.join(keys)} within {timeout.total_seconds():g} s")
        return values


#: In a rank. Torch keeps only the C++ half of a store, whose Python half must outlive the process group.
_store: RendezvousStore | None = None


def join_ranks(
    rendezvous: Any, rank: int, num_ranks: int, backend: str, timeout_s: int, share_a_node: bool = False
) -> None:
    """In a rank: form the process group with the others, which also call this."""
    global _store
    if share_a_node:
        stay_on_loopback()
    elif backend == "gloo" and "GLOO_SOCKET_IFNAME" not in os.environ:
        os.environ["GLOO_SOCKET_IFNAME"] = interface_of(ray.util.get_node_ip_address())
    timeout = timedelta(seconds=timeout_s)
    set_default_timeout(timeout)
    _store = RendezvousStore(rendezvous, timeout)
    torch.distributed.init_process_group(backend, store=_store, rank=rank, world_size=num_ranks, timeout=timeout)


def set_default_timeout(timeout: timedelta) -> None:
    """For the groups that libraries make of a group's ranks, as DeepSpeed does: torch gives them its own timeout of ten
    or thirty minutes, whatever that of the first group is."""
    distributed_c10d.default_pg_timeout = timeout
    distributed_c10d.default_pg_nccl_timeout = timeout


def interface_of(address: str) -> str:
    """The network interface of this machine that has ``address``, by which Ray knows it. Left to itself, gloo takes the
    one that the host's own name leads to, which may be loopback."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    raise RunError(f"no network interface of this node has its address in Ray, {address}; set GLOO_SOCKET_IFNAME")
