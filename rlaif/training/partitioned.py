"""Models that are partitioned among the ranks while they are made (ZeRO-3), so that no rank ever holds a whole one.

DeepSpeed partitions each layer as soon as it exists. Each rank then reads its own part of every tensor from the
safetensors files, where tensors lie flat, as partitions do: nothing is read twice, sent, or mapped.

Source: arXiv 1910.02054; the format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, rename_source_key
from transformers.initialization import meta_device_safe_creation_ops, no_init_weights
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from rlaif.errors import ModelError
from rlaif.training.deepspeed_config import ConfigDict
from rlaif.training.gathering import whole_shape

M_MMAP_THRESHOLD = -3  #: of malloc.h; at most 32 MiB
READ_BYTES = 2**26  #: at once
#: In safetensors' own words.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file."""

    file: str
    offset: int  #: bytes
    dtype: torch.dtype
    shape: tuple[int, ...]

    def read(self, start: int, target: Tensor) -> None:
        """Fill ``target`` [N] with the elements from ``start`` on, in flat order, and with zeros after the last."""
        total = torch.Size(self.shape).numel()
        end = min(start + target.numel(), total)
        with Path(self.file).open("rb") as stream:
            stream.seek(self.offset + start * self.dtype.itemsize)
            for first in range(start, end, READ_BYTES // self.dtype.itemsize):
                num = min(READ_BYTES // self.dtype.itemsize, end - first)
                data = bytearray(stream.read(num * self.dtype.itemsize))
                target[first - start : first - start + num] = torch.frombuffer(data, dtype=self.dtype)
        target[max(0, end - start) :] = 0


def load_partitioned(
    auto: Any, path: str, config: PreTrainedConfig, dtype: torch.dtype, partition: ConfigDict, new_head: str | None
) -> PreTrainedModel | None:
    """The model at ``path``, partitioned as ``partition`` says, a DeepSpeed configuration; None if its files need more
    than other names (experts that are stacked).

    With ``new_head``, the name of a tensor that is left to the caller, ``config`` may ask for a larger vocabulary than
    the files have: the rows that they lack are zero. Raises ModelError, OSError and ValueError.
    """
    import deepspeed

    with _freed_at_once(), no_init_weights(), deepspeed.zero.Init(config_dict_or_path=partition):
        model: PreTrainedModel = auto.from_config(config, dtype=dtype, trust_remote_code=False)
    model.tie_weights()
    renamings = get_model_conversion_mapping(model)
    if any(isinstance(renaming, WeightConverter) for renaming in renamings):
        return None
    with torch.device("meta"), no_init_weights(), meta_device_safe_creation_ops():
        like = auto.from_config(config, dtype=dtype, trust_remote_code=False)
    _compute_buffers(model, like)
    parameters = dict(model.named_parameters())
    persistent = {name: tensor for name, tensor in model.named_buffers() if name in model.state_dict(keep_vars=True)}
    wanted = {**parameters, **persistent}
    found = {}
    for name, stored in stored_tensors(path).items():
        known, _ = rename_source_key(
            name, renamings, [], base_model_prefix=model.base_model_prefix, meta_state_dict=wanted
        )
        found[known] = stored
    if new_head is not None:
        del wanted[new_head]
    _check(path, wanted, found, None if new_head is None else model.get_input_embeddings().weight)
    for name, tensor in wanted.items():
        _fill(tensor, found[name])
    if model.can_generate():
        model.generation_config = _generation_config(path, model)
    return model


def _compute_buffers(model: PreTrainedModel, like: PreTrainedModel) -> None:
    """Buffers in the dtypes that they have in ``like``: DeepSpeed rounds them to that of the weights, and positions
    need float32. Raises ModelError for a model whose buffers cannot be computed again."""
    dtypes = {name: buffer.dtype for name, buffer in like.named_buffers()}
    rounded = [name for name, buffer in model.named_buffers() if buffer.dtype != dtypes[name]]
    owners = {}
    for name in rounded:
        owner_name, _, own_name = name.rpartition(".")
        owner = owners[owner_name] = model.get_submodule(owner_name)
        setattr(owner, own_name, getattr(owner, own_name).to(dtypes[name]))
        if next(owner.parameters(recurse=False), None) is not None:
            raise ModelError(f"{type(model).__name__}: {name} cannot be kept in {dtypes[name]} under zero_stage 3")
    for owner in owners.values():
        model._init_weights(owner)


def _check(path: str, wanted: dict[str, Tensor], found: dict[str, StoredTensor], enlarged: Tensor | None) -> None:
    for name, tensor in wanted.items():
        if name not in found:
            raise ModelError(f"{path}: has no weights for {name}")
        shape, stored = tuple(whole_shape(tensor)), found[name].shape
        fits = stored[1:] == shape[1:] and stored[:1] <= shape[:1] if tensor is enlarged else stored == shape
        if not fits:
            raise ModelError(f"{path}: {name} has the shape {list(stored)}, not {list(shape)} as its config says")


def _fill(tensor: Tensor, stored: StoredTensor) -> None:
    """This rank's part of ``tensor``, or all of a buffer."""
    with torch.no_grad():
        if not hasattr(tensor, "ds_tensor"):
            flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
            stored.read(0, flat)
            tensor.copy_(flat.view(tensor.shape))
            return
        part = tensor.ds_tensor
        start = part.numel() * torch.distributed.get_rank(tensor.ds_process_group)
        stored.read(start, part)


def _generation_config(path: str, model: PreTrainedModel) -> Any:
    try:
        stored = GenerationConfig.from_pretrained(path, trust_remote_code=False)
    except OSError:  # a base without one
        return model.generation_config
    vars(stored).pop("trust_remote_code", None)  # it takes what it does not know for a setting of its own
    return stored


def stored_tensors(path: str) -> dict[str, StoredTensor]:
    """All tensors of the safetensors files at ``path``, a directory or hub name. Raises OSError and ModelError."""
    index = cached_file(path, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
    if index is None:
        files = [cached_file(path, SAFE_WEIGHTS_NAME)]
    else:
        files, _ = get_checkpoint_shard_files(path, index)
    return {name: stored for file in files for name, stored in _header(str(file))}


def _header(file: str) -> Iterator[tuple[str, StoredTensor]]:
    with Path(file).open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ModelError(f"{file}: {name} is stored as {entry['dtype']}, not as one of {', '.join(DTYPES)}")
        offset = 8 + length + entry["data_offsets"][0]
        yield name, StoredTensor(file=file, offset=offset, dtype=DTYPES[entry["dtype"]], shape=tuple(entry["shape"]))


@contextmanager
def _freed_at_once() -> Iterator[None]:
    """Memory of large tensors goes back to the system when they are freed. On a CPU, where whole layers and lasting
    parts come from one heap, the holes between the parts would add up to a model."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 2**25)


@contextmanager
def gathered_in_use(module: nn.Module) -> Iterator[None]:
    """Let a partitioned ``module`` run before it has a DeepSpeed engine: each layer's parameters are whole while the
    layer runs. Every rank must run it alike."""
    import deepspeed

    running: dict[nn.Module, Any] = {}

    def gather(layer: nn.Module, *_: Any) -> None:
        running[layer] = deepspeed.zero.GatheredParameters(list(layer.parameters(recurse=False)))
        running[layer].__enter__()

    def release(layer: nn.Module, *_: Any) -> None:
        running.pop(layer).__exit__(None, None, None)

    hooks = []
    for layer in module.modules():
        if any(hasattr(parameter, "ds_tensor") for parameter in layer.parameters(recurse=False)):
            hooks += [layer.register_forward_pre_hook(gather), layer.register_forward_hook(release)]
    try:
        with _freed_at_once():
            yield
    finally:
        for hook in hooks:
            hook.remove()
