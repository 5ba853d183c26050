"""The process group of a rank, and what DeepSpeed keeps of it."""

from __future__ import annotations

import atexit
import gc
from typing import Any

import deepspeed.comm.comm
import torch
import torch.distributed
from deepspeed.utils import groups

_adopted: Any = None  #: the world group that DeepSpeed's cached groups belong to


def make_group_of_one() -> None:
    """Gloo on CPUs, NCCL on GPUs; left when the process ends."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    atexit.register(leave_process_group)


def adopt_process_group() -> None:
    """Make DeepSpeed forget groups of a world that is gone: an engine that closes in this process may destroy it."""
    global _adopted
    world = torch.distributed.group.WORLD
    if _adopted is not None and _adopted is not world:
        _forget()
    _adopted = world


def leave_process_group() -> None:
    """Destroy the process group, if there is one, and join gloo's threads; models must be closed before.

    Torch joins these threads when the last reference to a group is dropped, and its ``destroy_process_group`` leaves
    DeepSpeed's references alone. A thread that is alive when the interpreter ends and wants its lock, to free a tensor,
    is ended by Python in the middle of a destructor, and the process aborts ("terminate called without an active
    exception"). A process that imports this module after its group was made cannot drop the last reference: DeepSpeed
    has it as the default of arguments.
    """
    global _adopted
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    _adopted = None
    _forget()
    gc.collect()  # DeepSpeed's objects refer to each other


def _forget() -> None:
    groups._release_process_group_references()
    deepspeed.comm.comm.cdb = None
