"""Models on disk: Hugging Face layout, safetensors, written a shard at a time, so that no process needs room for more
than a shard and a bucket of gathered tensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from rlaif.jobs import Rank
from rlaif.training.collectives import wait_for_all
from rlaif.training.gathering import gathered_state, whole_shape

SHARD_BYTES = 4 * 2**30


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: str, rank: Rank, shard_bytes: int = SHARD_BYTES
) -> None:
    """Save ``model``, whole or partitioned, with its config and ``tokenizer``; every rank must call it, rank 0 writes.
    Returns on every rank when the files are there.

    A tied output head is left to ``tie_word_embeddings`` in the config, as stock loaders expect.
    """
    tensors = _beating(_without_ties(gathered_state(model), model), rank)
    if _is_stacked(model):  # stored expert by expert, which needs them all
        state = {name: tensor.cpu().clone() for name, tensor in tensors if rank.index == 0}
        if rank.index == 0:
            model.save_pretrained(path, state_dict=state)
    elif rank.index == 0:
        Path(path).mkdir(parents=True, exist_ok=True)
        _write(_as_stored(tensors, model), _plan(model, shard_bytes), Path(path))
        _write_config(model, path)
    else:
        for _ in tensors:  # gathered together with rank 0
            pass
    if rank.index == 0:
        tokenizer.save_pretrained(path)
    wait_for_all(rank)


def _beating(tensors: Iterable[tuple[str, Tensor]], rank: Rank) -> Iterator[tuple[str, Tensor]]:
    for named in tensors:
        rank.beat()
        yield named


def _without_ties(tensors: Iterable[tuple[str, Tensor]], model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    names = _names(model)
    return ((name, tensor) for name, tensor in tensors if name in names)


def _names(model: PreTrainedModel) -> set[str]:
    """What is stored: the first name of each tensor."""
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first.setdefault(id(tensor), name)
    return set(first.values()) - set(model._keys_to_ignore_on_save or ())


def _is_stacked(model: PreTrainedModel) -> bool:
    mapping = getattr(model, "_weight_conversions", None) or get_model_conversion_mapping(model, add_legacy=False)
    return any(isinstance(conversion, WeightConverter) for conversion in mapping)


def _as_stored(tensors: Iterable[tuple[str, Tensor]], model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        yield from revert_weight_conversion(model, {name: tensor}).items()


def _plan(model: PreTrainedModel, shard_bytes: int) -> StateDictSplit:
    empty = (
        (name, torch.empty(whole_shape(tensor), dtype=tensor.dtype, device="meta"))
        for name, tensor in model.state_dict(keep_vars=True).items()
    )
    shapes = dict(_as_stored(_without_ties(empty, model), model))
    return split_torch_state_dict_into_shards(shapes, max_shard_size=shard_bytes)


def _write(tensors: Iterable[tuple[str, Tensor]], plan: StateDictSplit, path: Path) -> None:
    """Each file as soon as its tensors are here; the index, and what an earlier model left, last."""
    left = {file: set(names) for file, names in plan.filename_to_tensors.items()}
    held: dict[str, dict[str, Tensor]] = {file: {} for file in left}
    for name, tensor in tensors:
        file = plan.tensor_to_filename[name] if plan.is_sharded else next(iter(left))
        held[file][name] = tensor.detach().to("cpu", copy=True).contiguous()
        left[file].remove(name)
        if not left[file]:
            save_file(held.pop(file), path / file, metadata={"format": "pt"})
    assert not held, "every planned tensor comes"
    for found in path.glob("*.safetensors"):
        if found.name not in left:
            found.unlink()
    index = path / SAFE_WEIGHTS_INDEX_NAME
    index.unlink(missing_ok=True)
    if plan.is_sharded:
        index.write_text(json.dumps({"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}, indent=2))


def _write_config(model: PreTrainedModel, path: str) -> None:
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(path)
    if model.can_generate():
        model.generation_config.save_pretrained(path)


def end_with_eos(language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the model's configuration name the EOS that it was taught; tokens that ended its answers before still do."""
    language_model.config.eos_token_id = tokenizer.eos_token_id
    generation = language_model.generation_config
    if generation is not None:
        before = generation.eos_token_id
        ends = before if isinstance(before, list) else [] if before is None else [before]
        generation.eos_token_id = list(dict.fromkeys([tokenizer.eos_token_id, *ends]))
