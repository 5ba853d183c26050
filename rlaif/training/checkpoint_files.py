"""DeepSpeed's checkpoints, loaded as data. DeepSpeed loads them with ``weights_only=False``, as pickles that may run
any code; what it writes needs none of that.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from rlaif.errors import ModelError

FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  #: read by torch.load at each call; goes before its argument
#: What checkpoints of all ZeRO stages hold besides tensors and plain values.
HARMLESS = [ZeroStageEnum, LossScaler, fragment_address]


@contextmanager
def weights_only(path: str) -> Iterator[None]:
    """``torch.load`` makes nothing but tensors, plain values and ``HARMLESS`` objects inside the block.

    Raises ModelError, naming the checkpoint ``path``, when a file holds anything else.
    """
    before = os.environ.get(FORCE_WEIGHTS_ONLY)
    os.environ[FORCE_WEIGHTS_ONLY] = "1"
    try:
        with torch.serialization.safe_globals(HARMLESS):
            yield
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: is no checkpoint of a trainer: it holds code or objects besides weights, and was not loaded"
        ) from error
    finally:
        if before is None:
            del os.environ[FORCE_WEIGHTS_ONLY]
        else:
            os.environ[FORCE_WEIGHTS_ONLY] = before
