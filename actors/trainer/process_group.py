"""How the ranks of a fit find each other: on one machine through a file, on a cluster as Ray Train has it.

Torch's TCP store listens on every interface and asks nobody who they are. Ranks of one machine need none: a file in a
directory that only this user can read does the same, and what then listens (gloo, NCCL) does so on loopback
(``actors.cluster.loopback``).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

from actors.cluster.loopback import is_loopback
from rlaif.config.schema import Trainer


def torch_config(trainer: Trainer, address: str) -> TorchConfig:
    """``address``: of the cluster's head, host:port."""
    kind = OneMachineConfig if is_loopback(address) else TorchConfig
    return kind(backend="nccl" if trainer.gpus else "gloo", timeout_s=int(trainer.step_timeout_s))


class OneMachineConfig(TorchConfig):
    """Ray Train's configuration, for ranks that all run on the machine of their controller."""

    @property
    def backend_cls(self) -> type[OneMachineBackend]:
        return OneMachineBackend


class OneMachineBackend(_TorchBackend):
    """Runs in Ray Train's controller."""

    _directory: tempfile.TemporaryDirectory[str] | None = None

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Let ranks that have just been started, or restarted, form their process group."""
        self._forget()
        self._directory = tempfile.TemporaryDirectory(prefix="rlaif-ranks-")  # with mode 0700
        worker_group.execute(_set_torch_distributed_env_vars)
        num = len(worker_group)
        joined = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=num,
                init_method=(Path(self._directory.name) / "store").as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(num)
        ]
        ray.get(joined)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_shutdown(worker_group, backend_config)
        self._forget()

    def _forget(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None
