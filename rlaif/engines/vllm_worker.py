"""What runs inside vLLM's workers, one for each tensor-parallel rank: loading new weights, and reading them back.

vLLM fuses matrices (``qkv_proj``), cuts them (tensor parallelism), repeats key and value heads, pads vocabularies and
leaves tied heads out. None of that is written down here: while vLLM's own loaders copy a bucket, ``CopyRecorder``, a
mode of torch's dispatcher, notes which part of which sent tensor went where. ``read_back`` then sums the bits that lie
*there*, when all buckets are loaded, as the part of the sent tensor that they must be (``checksums``).

What is noticed:
- a parameter that holds other bits than were sent, for whatever reason: left old, overwritten, exchanged, damaged;
- a parameter of the served model into which nothing, or not everything, was loaded, such as an output head that is a
  copy and not tied;
- a tensor that was sent and went nowhere, unless it is tied to one that arrived.

What is not: layers that store something else than what was loaded into them (experts, latent attention, quantized
layers), and loaders that compute (``weight + 1``). ``served_as_loaded`` finds the former; a model that has them goes
through vLLM's layerwise reload, and only its probe proves it. Nor are buffers, which are never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.model_executor.layers import utils as vllm_layers
from vllm.platforms import current_platform

from rlaif.engines.checksums import as_tensor, bit_sum
from rlaif.engines.models import HEAD
from rlaif.engines.served_weights import Box, ReadBack, ServedPart

_pack = vllm_layers.dispatch_cpu_unquantized_gemm


def _leave_unpacked(layer: nn.Module, remove_weight: bool) -> None:
    """In place of vLLM's packing of matrices for CPUs, which would leave nothing to read back, nor to load into."""
    if layer.weight.ndim == 2:
        layer.cpu_linear = nn.functional.linear
    else:
        _pack(layer, remove_weight)


if current_platform.is_cpu():
    vllm_layers.dispatch_cpu_unquantized_gemm = _leave_unpacked


class WeightsExtension:
    """Methods that vLLM adds to its workers (``worker_extension_cls``), called through ``collective_rpc``."""

    def rlaif_load(self, tensors: Mapping[str, np.ndarray]) -> None:
        module: nn.Module = self.get_model()  # type: ignore[attr-defined]
        sent = {name: as_tensor(array) for name, array in tensors.items()}
        if not served_as_loaded(module):
            self._load_layerwise(module, sent)
            return
        recorder = self._recorder()
        with torch.no_grad(), recorder.watching(sent):
            module.load_weights(_placeable(module, sent))

    def rlaif_read_back(self) -> ReadBack | None:
        """Ends a load. None for a model that cannot be read back."""
        module: nn.Module = self.get_model()  # type: ignore[attr-defined]
        if not served_as_loaded(module):
            self._finish_layerwise(module)
            return None
        recorder = self._recorder()
        del self._rlaif_recorder
        return recorder.read_back(module)

    def _recorder(self) -> CopyRecorder:
        if not hasattr(self, "_rlaif_recorder"):
            self._rlaif_recorder = CopyRecorder()
        return self._rlaif_recorder

    def _load_layerwise(self, module: nn.Module, sent: Mapping[str, Tensor]) -> None:
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        with set_current_vllm_config(self.vllm_config):  # type: ignore[attr-defined]
            if not getattr(self, "_rlaif_reloading", False):
                initialize_layerwise_reload(module)
                self._rlaif_reloading = True
            # It keeps what it cannot process yet, and a bucket is freed once it is loaded.
            module.load_weights([(name, tensor.clone()) for name, tensor in _placeable(module, sent)])

    def _finish_layerwise(self, module: nn.Module) -> None:
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        self._rlaif_reloading = False
        with set_current_vllm_config(self.vllm_config):  # type: ignore[attr-defined]
            finalize_layerwise_reload(module, self.model_config)  # type: ignore[attr-defined]


def _placeable(module: nn.Module, sent: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Some models have no place for a tied output head, and refuse to load one."""
    return [(name, tensor) for name, tensor in sent.items() if name != HEAD or hasattr(module, HEAD.partition(".")[0])]


def served_as_loaded(module: nn.Module) -> bool:
    """Whether all layers of a model compute with their weights exactly as loaded."""
    from vllm.model_executor.layers.attention.mla_attention import MLAAttention
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    as_loaded = (type(None), UnquantizedLinearMethod, UnquantizedEmbeddingMethod)
    layers = tuple(module.modules())
    return not any(isinstance(layer, MLAAttention) for layer in layers) and all(
        isinstance(getattr(layer, "quant_method", None), as_loaded) for layer in layers
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Copy:
    """``part`` of the served model holds the ``box`` of what was sent as ``names``."""

    names: tuple[str, ...]
    box: Box
    part: Tensor
    expected: int | None


class CopyRecorder(TorchDispatchMode):
    """Notes what is copied from sent tensors, and to where. Other operations run as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._sent: dict[int, tuple[tuple[str, ...], Tensor]] = {}  # by storage: what the loaders are given
        self._copies: dict[tuple[Any, ...], _Copy] = {}  # by where they went; a later one replaces an earlier one
        self._constants: dict[tuple[Any, ...], Tensor] = {}  # parts that were filled with one number, as padding is
        self._opaque: set[int] = set()  # storages that something else was written into

    def watching(self, sent: Mapping[str, Tensor]) -> CopyRecorder:
        """The mode, for a load of ``sent``; tied tensors share their memory."""
        self._sent = {}
        for name, tensor in sent.items():
            names, _ = self._sent.get(_storage(tensor), ((), tensor))
            self._sent[_storage(tensor)] = ((*names, name), tensor)
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._sent = {}  # the bucket's memory is not ours

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.copy_.default:
            self._copied(args[0], args[1])
        elif func._schema.is_mutable and isinstance(args[0], Tensor):
            if func in (torch.ops.aten.fill_.Scalar, torch.ops.aten.zero_.default):
                self._constants[_place(args[0])] = args[0]
            else:
                self._opaque.add(_storage(args[0]))
        return result

    def _copied(self, target: Tensor, source: Tensor) -> None:
        names, whole = self._sent.get(_storage(source), ((), source))
        if source.ndim == 2 and source.stride(0) == 1 != source.stride(1):  # a loader that transposes
            target, source = target.t(), source.t()
        box = _box(source, whole) if names and target.shape == source.shape else None
        if box is None:
            self._opaque.add(_storage(target))
            return
        expected = None
        if target.dtype != source.dtype:
            expected = bit_sum(source.to(target.dtype), *box[:2])
        self._copies[_place(target)] = _Copy(names=names, box=box, part=target, expected=expected)

    def read_back(self, module: nn.Module) -> ReadBack:
        loaded: dict[int, int] = {}
        for part in [*(copy.part for copy in self._copies.values()), *self._constants.values()]:
            loaded[_storage(part)] = loaded.get(_storage(part), 0) + part.numel()
        parameters = dict(module.named_parameters())
        partly = [name for name, held in parameters.items() if loaded.get(_storage(held), 0) < held.numel()]
        opaque = [name for name in partly if _storage(parameters[name]) in self._opaque]
        served = set(map(_storage, parameters.values()))
        parts = [
            ServedPart(
                names=copy.names,
                box=copy.box,
                bits=bit_sum(copy.part, *copy.box[:2]),
                expected=copy.expected,
            )
            for copy in self._copies.values()
            if _storage(copy.part) in served
        ]
        unloaded = set(partly) - set(opaque)
        return ReadBack(parts=tuple(parts), unloaded=tuple(unloaded), opaque=tuple(opaque))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return _storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


def _matrix(tensor: Tensor) -> Tensor:
    """As ``checksums`` reads it, without a copy."""
    return tensor.view(-1, tensor.shape[-1]) if tensor.ndim > 1 else tensor.view(1, -1)


def _box(part: Tensor, whole: Tensor) -> Box | None:
    """Where ``part`` lies in ``whole``, of which it is a view: first row, first column, rows and columns. None if that
    is not a rectangle."""
    width = whole.shape[-1] if whole.ndim else 1
    try:
        matrix = _matrix(part)
    except RuntimeError:
        return None
    rows, columns = matrix.shape
    if (columns > 1 and matrix.stride(1) != 1) or (rows > 1 and matrix.stride(0) != width):
        return None
    first_row, first_column = divmod(part.storage_offset() - whole.storage_offset(), width)
    if first_column + columns > width:
        return None
    return first_row, first_column, rows, columns
