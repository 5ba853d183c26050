"""One rank's model under DeepSpeed: an optimizer step over any number of micro-batches, sums instead of averages.

DeepSpeed averages gradients over the ranks; our losses are already divided by global denominators, so every loss is
multiplied by the number of ranks before its backward pass. Gradient accumulation is ours (``managed_gradient_
accumulation: false``): DeepSpeed divides nothing by it, and a step may hold any number of micro-batches, as long as it
is the same on every rank, because ZeRO-3 gathers parameters in each pass.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from rlaif.config.schema import Optimization, Trainer
from rlaif.jobs import Rank

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # found anyway, but with a warning
import deepspeed
import deepspeed.comm.comm
import deepspeed.ops
from deepspeed.runtime.zero import parameter_offload
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import groups
from deepspeed.utils import logger as deepspeed_logger

deepspeed_logger.setLevel(logging.ERROR)
# Old names of collectives, called by DeepSpeed in every step.
warnings.filterwarnings("ignore", message=r".*`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
# DeepSpeed would compile its shared-memory collectives on first use. A rank killed meanwhile leaves a lock file behind
# that later ranks wait for without end, and gloo is fast enough.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def start_rank(rank: Rank, trainer: Trainer) -> None:
    """Set CPU threads and make sure that a process group exists (a group of one is made here).

    Gloo on CPUs, NCCL on GPUs.
    """
    torch.set_num_threads(trainer.threads)
    if not torch.distributed.is_initialized():
        assert rank.world_size == 1, "the process group of several ranks is made by whoever starts them"
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    if rank.world_size == 1:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed's launcher would have set it
    _adopt_process_group()
    assert torch.distributed.get_world_size() == rank.world_size
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


_adopted: Any = None  #: the world group that DeepSpeed's cached groups belong to


def _adopt_process_group() -> None:
    """Make DeepSpeed forget groups of a world that is gone: in one process, an engine that closes may destroy it."""
    global _adopted
    world = torch.distributed.group.WORLD
    if _adopted is not None and _adopted is not world:
        groups._release_process_group_references()
        deepspeed.comm.comm.cdb = None
    _adopted = world


def effective_stage(trainer: Trainer) -> int:
    """The ZeRO stage that is used: bfloat16 and offload need at least stage 1, which keeps float32 master weights."""
    needs_master = trainer.dtype == "bfloat16" or trainer.cpu_offload
    return max(trainer.zero_stage, 1) if needs_master else trainer.zero_stage


def deepspeed_config(
    trainer: Trainer, *, learning_rate: float, weight_decay: float, max_grad_norm: float
) -> dict[str, Any]:
    """DeepSpeed's own configuration for one engine.

    ``torch_adam`` is on where the optimizer runs on a CPU: DeepSpeed's own CPU Adam needs a compiler at run time.
    Betas (0.9, 0.95): the usual choice for language models, steadier than 0.999 on runs of few steps.
    """
    on_cpu = trainer.cpu_offload or not torch.cuda.is_available()
    stage = effective_stage(trainer)
    offload = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    zero: dict[str, Any] = {"stage": stage}
    if trainer.cpu_offload and stage >= 1:
        zero["offload_optimizer"] = offload
    if trainer.cpu_offload and stage == 3:
        zero["offload_param"] = offload
    optimizer = {"lr": learning_rate, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": weight_decay}
    return {
        "train_micro_batch_size_per_gpu": 1,  # a formality: micro-batches are cut by tokens
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": max_grad_norm if stage else 0.0,  # stage 0: see ``DeepSpeedModel._clip``
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": trainer.dtype == "bfloat16"},
        "optimizer": {"type": "AdamW", "params": {**optimizer, "torch_adam": on_cpu}},
        "steps_per_print": 10**9,
    }


class DeepSpeedModel:
    """A module under DeepSpeed. Calling it runs the module's forward pass on this rank."""

    def __init__(
        self,
        module: nn.Module,
        trainer: Trainer,
        rank: Rank,
        *,
        learning_rate: float,
        warmup_steps: int = 0,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
    ) -> None:
        config = deepspeed_config(
            trainer, learning_rate=learning_rate, weight_decay=weight_decay, max_grad_norm=max_grad_norm
        )
        self._engine, _, _, _ = deepspeed.initialize(
            model=module, model_parameters=[p for p in module.parameters() if p.requires_grad], config=config
        )
        if effective_stage(trainer) == 0:
            self._engine.optimizer.register_step_pre_hook(self._clip)
        self.module = module
        self.device = self._engine.device
        self._zero_stage = effective_stage(trainer)
        self._max_grad_norm = max_grad_norm
        self._grad_norm = 0.0
        self._rank = rank
        self._learning_rate = learning_rate
        self._warmup_steps = warmup_steps

    @classmethod
    def supervised(cls, module: nn.Module, trainer: Trainer, rank: Rank, settings: Optimization) -> DeepSpeedModel:
        """For a pass of supervised optimisation: SFT, or a fit of the preference model."""
        return cls(
            module,
            trainer,
            rank,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._engine(*args, **kwargs)

    @property
    def num_steps(self) -> int:
        """Optimizer steps taken so far."""
        return self._engine.global_steps

    def step(self, losses: Iterable[Tensor], rate: float = 1.0) -> None:
        """One optimizer step on the sum of ``losses`` over all micro-batches and ranks, at ``rate`` times the learning
        rate (and less while warming up).

        ``losses`` is drawn one at a time, so each micro-batch's graph is freed before the next is built.
        """
        warmed = min(1.0, (self.num_steps + 1) / (self._warmup_steps + 1))
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self._learning_rate * rate * warmed
        for loss in losses:
            self._engine.backward(loss * self._rank.world_size, scale_wrt_gas=False)
        self._engine.step()

    def _clip(self, *_: Any) -> None:
        # DeepSpeed clips plain optimizers too, but keeps the norm to itself.
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._max_grad_norm)
        self._grad_norm = norm.item()

    def grad_norm(self) -> float:
        """Norm of the last step's gradient before clipping."""
        return self._grad_norm if self._zero_stage == 0 else float(self._engine.get_global_grad_norm())

    def full_state(self) -> dict[str, Tensor]:
        """All weights of the module on the CPU, by their names; under ZeRO-3 gathered one at a time, on rank 0 only.

        Every rank must call it. Tied weights are one tensor under several names.
        """
        tensors = self.module.state_dict(keep_vars=True)
        copies: dict[int, Tensor] = {}
        for tensor in {id(tensor): tensor for tensor in tensors.values()}.values():
            with self._gathered(tensor):
                if self._rank.index == 0:
                    copies[id(tensor)] = tensor.detach().cpu().clone()
        return {name: copies[id(tensor)] for name, tensor in tensors.items() if id(tensor) in copies}

    @contextmanager
    def _gathered(self, tensor: Tensor) -> Iterator[None]:
        gathers = self._zero_stage == 3 and isinstance(tensor, nn.Parameter)
        with deepspeed.zero.GatheredParameters([tensor], enabled=gathers):
            yield

    def save_checkpoint(self, path: str) -> None:
        """Weights and optimizer, under ``path``; every rank must call it."""
        self._engine.save_checkpoint(path, tag="engine")

    def load_checkpoint(self, path: str) -> None:
        self._engine.load_checkpoint(path, tag="engine")

    def close(self) -> None:
        """Let go of the module and the optimizer's state, so that there is room for another engine's."""
        self._engine.destroy()
        if self._zero_stage == 3:
            _forget_partitioned(self.module)
        del self._engine, self.module
        gc.collect()  # DeepSpeed's objects refer to each other


def _forget_partitioned(module: nn.Module) -> None:
    """Drop what DeepSpeed keeps for the life of the process of a ZeRO-3 module, even after ``destroy``: its place on
    the stack of running modules, and its place in a method's cache, behind a decorator that hides it."""
    parameter_offload.FWD_MODULE_STACK.remove(module)
    method = vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
    inspect.getclosurevars(method).nonlocals["func"].cache_clear()


class Frozen:
    """A module that is only read: in device memory, in host memory between uses (offload), or partitioned (ZeRO-3)."""

    def __init__(self, module: nn.Module, trainer: Trainer) -> None:
        self._module = module.requires_grad_(False).eval()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._partitioned = trainer.zero_stage == 3
        self._offloaded = trainer.cpu_offload and not self._partitioned
        if self._partitioned:
            config = {
                "train_micro_batch_size_per_gpu": 1,
                "zero_optimization": {"stage": 3},
                "bf16": {"enabled": trainer.dtype == "bfloat16"},
                "steps_per_print": 10**9,
            }
            self._module, _, _, _ = deepspeed.initialize(model=module, config=config)
        elif not self._offloaded:
            self._module.to(self._device)

    @contextmanager
    def resident(self) -> Iterator[nn.Module]:
        """The module, callable while the context lasts."""
        if self._offloaded:
            self._module.to(self._device)
        yield self._module
        if self._offloaded:
            self._module.to("cpu")


def wait_for_all(rank: Rank) -> None:
    """Return when every rank has come here."""
    if rank.world_size > 1:
        torch.distributed.barrier()


def add_over_ranks(tensor: Tensor, rank: Rank) -> Tensor:
    """``tensor`` itself, holding the sum over all ranks. One rank needs no process group for it."""
    if rank.world_size > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def summed(values: Mapping[str, float], rank: Rank, device: torch.device) -> dict[str, float]:
    """Each value's sum over all ranks. Keys must be the same everywhere."""
    tensor = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    return dict(zip(values, add_over_ranks(tensor, rank).tolist(), strict=True))


def largest(value: int, rank: Rank, device: torch.device) -> int:
    """The largest ``value`` of all ranks."""
    if rank.world_size == 1:
        return value
    tensor = torch.tensor(value, device=device)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    return int(tensor.item())
