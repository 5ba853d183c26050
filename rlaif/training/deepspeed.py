"""One rank's model under DeepSpeed: an optimizer step over any number of micro-batches, sums instead of averages.

DeepSpeed averages gradients over the ranks; our losses are already divided by global denominators, so every loss is
multiplied by the number of ranks before its backward pass. Gradient accumulation is ours (``managed_gradient_
accumulation: false``): DeepSpeed divides nothing by it, and a step may hold any number of micro-batches.

A step whose gradient is not finite changes nothing: one such step would leave NaN in Adam's moments for good. DeepSpeed
skips it under ZeRO, we do without.
"""

from __future__ import annotations

import gc
import inspect
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from rlaif.algorithms.losses import Metrics
from rlaif.config.schema import Optimization
from rlaif.config.trainer import Trainer
from rlaif.jobs import Rank
from rlaif.training.checkpoint_files import CheckpointWriter, read_checkpoint
from rlaif.training.collectives import even_passes, sum_over_ranks
from rlaif.training.deepspeed_config import effective_zero_stage, frozen_config, training_config
from rlaif.training.divergence import SkippedSteps
from rlaif.training.models import save_memory
from rlaif.training.owned import Owned
from rlaif.training.process_group import adopt_process_group, make_group_of_one

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would find it too, but with a warning
import deepspeed
import deepspeed.ops
from deepspeed.runtime.zero import parameter_offload
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import logger as deepspeed_logger

deepspeed_logger.setLevel(logging.ERROR)
# DeepSpeed calls collectives by their old names in every step.
warnings.filterwarnings("ignore", message=r".*`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
# DeepSpeed would compile its shared-memory collectives on first use. A rank that is killed meanwhile leaves a lock file
# that later ranks wait for forever, and gloo is fast enough.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

_Row = TypeVar("_Row")


def start_rank(rank: Rank, trainer: Trainer) -> None:
    """Set CPU threads and make sure that a process group exists (a group of one is made here)."""
    torch.set_num_threads(trainer.optimizer_threads)
    if not torch.distributed.is_initialized():
        assert rank.world_size == 1, "what starts several ranks makes their process group"
        make_group_of_one()
    if rank.world_size == 1:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed's launcher would have set it
    adopt_process_group()
    assert torch.distributed.get_world_size() == rank.world_size
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


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
        save_memory(module, trainer)
        config = training_config(
            trainer, learning_rate=learning_rate, weight_decay=weight_decay, max_grad_norm=max_grad_norm
        )
        self._engine, _, _, _ = deepspeed.initialize(
            model=module, model_parameters=[p for p in module.parameters() if p.requires_grad], config=config
        )
        self._zero_stage = effective_zero_stage(trainer)
        if self._zero_stage == 0:
            self._engine.optimizer.register_step_pre_hook(self._clip)
        self.module = module
        self.device: torch.device = self._engine.device
        self._max_grad_norm = max_grad_norm
        self.skipped = SkippedSteps(trainer.max_skipped_steps)
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
        """Optimizer steps so far, skipped ones included."""
        return int(self._engine.global_steps)

    def step(
        self,
        plan: Sequence[list[_Row]],
        loss_of: Callable[[list[_Row]], tuple[Tensor, Metrics]],
        rate: float = 1.0,
    ) -> dict[str, float]:
        """One optimizer step on the sum of ``loss_of`` over all passes of all ranks, at ``rate`` times the learning
        rate (and less while warming up).

        ``plan`` holds the rows of each of this rank's passes. Ranks with fewer passes than others make up for it with
        passes over no rows, whose loss must be 0 with a gradient. Each pass's graph is freed before the next is built.
        Returns the sums over all ranks of the losses (``loss``) and of the metrics, and ``skipped``: 1 if the gradient
        was not finite, else 0. Raises DivergenceError, on all ranks, when there have been too many such steps.
        """
        warmed = min(1.0, (self.num_steps + 1) / (self._warmup_steps + 1))
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self._learning_rate * rate * warmed
        sums: dict[str, Tensor] = {}
        for rows in even_passes(plan, self._rank, self.device):
            loss, metrics = loss_of(rows)
            for name, value in {"loss": loss.detach(), **metrics}.items():
                sums[name] = sums[name] + value if name in sums else value
            self._backward(loss)
        self._engine.step()
        totals = sum_over_ranks({name: value.item() for name, value in sums.items()}, self._rank, self.device)
        skipped = not math.isfinite(self.grad_norm())
        if skipped:
            self.skipped.add(self.num_steps, totals["loss"])
        return {**totals, "skipped": float(skipped)}

    def _backward(self, loss: Tensor) -> None:
        # A checkpointed layer is computed again only as far as needed, without the hooks that would take it off the
        # stack of running modules, which would grow with every pass and outlive this model.
        running = parameter_offload.FWD_MODULE_STACK
        height = len(running)
        self._engine.backward(loss * self._rank.world_size, scale_wrt_gas=False)
        del running[height:]

    def _clip(self, *_: Any) -> None:
        # DeepSpeed clips plain optimizers too, but keeps the norm to itself.
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._max_grad_norm)
        self._grad_norm = norm.item()
        if not math.isfinite(self._grad_norm):
            self.module.zero_grad(set_to_none=True)  # an optimizer passes over parameters without a gradient

    def grad_norm(self) -> float:
        """Norm of the last step's gradient before clipping."""
        return self._grad_norm if self._zero_stage == 0 else float(self._engine.get_global_grad_norm())

    def begin_checkpoint(self, path: Path, in_background: bool) -> CheckpointWriter:
        """Weights and optimizer as they are now, to be written under ``path``; every rank must call it."""
        return CheckpointWriter(path, self._owned(), self.num_steps, self._rank, in_background)

    def load_checkpoint(self, path: Path) -> None:
        """Go on from ``path``, whatever number of ranks wrote it; every rank must call it. Raises ModelError."""
        self._engine.global_steps = read_checkpoint(path, self._owned(), self._rank).taken

    def _owned(self) -> Owned:
        return Owned(self.module, self._engine.optimizer, self._zero_stage, self._rank)

    def close(self) -> None:
        """Let go of the module and the optimizer's state, to make room for another model's."""
        self._engine.destroy()
        if self._zero_stage == 3:
            _forget_partitioned(self.module)
        del self._engine, self.module
        gc.collect()  # DeepSpeed's objects refer to each other


def _forget_partitioned(module: nn.Module) -> None:
    """Drop what DeepSpeed keeps of a ZeRO-3 module for the life of the process, even after ``destroy``: its place on
    the stack of running modules, and its place in a method's cache, which a decorator hides."""
    parameter_offload.FWD_MODULE_STACK.remove(module)
    method = vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
    inspect.getclosurevars(method).nonlocals["func"].cache_clear()


class FrozenModel:
    """A module that is only read: in device memory, in host memory between uses, or partitioned among the ranks."""

    def __init__(self, module: nn.Module, trainer: Trainer) -> None:
        save_memory(module, trainer)
        self._module = module.requires_grad_(False).eval()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._partitioned = trainer.places_reference == "partitioned"
        self._offloaded = trainer.places_reference == "host"
        if self._partitioned:
            self._engine, _, _, _ = deepspeed.initialize(model=module, config=frozen_config(trainer))
        elif not self._offloaded:
            self._module.to(self._device)

    @contextmanager
    def resident(self) -> Iterator[nn.Module]:
        """The module, callable while the context lasts."""
        if self._offloaded:
            self._module.to(self._device)
        yield self._engine if self._partitioned else self._module
        if self._offloaded:
            self._module.to("cpu")

    def close(self) -> None:
        """Let go of the module."""
        if self._partitioned:
            self._engine.destroy()
            _forget_partitioned(self._module)
            del self._engine
        del self._module
        gc.collect()  # as in ``DeepSpeedModel.close``
