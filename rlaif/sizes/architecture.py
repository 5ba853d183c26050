"""The shape of a model, read from its ``config.json``; weights are neither fetched nor loaded.

Parameters are counted by building the model on torch's meta device, which has no memory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rlaif.config.files import expand_home
from rlaif.config.section import Dtype
from rlaif.engines.model_files import MAX_JSON_BYTES, ModelConfig, parse_model_json, read_bytes
from rlaif.engines.models import is_hub_name
from rlaif.errors import ModelError, format_value
from rlaif.places.paths import is_directory
from rlaif.prompting.tokenization import describe_model_error

CONFIG_JSON = "config.json"
ASK_HUB_S = 5.0
_MINIATURE = "miniature:"
#: Settings that change no size, and need libraries that only trainers and engines have.
CHOICES_OF_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
LARGEST_SIZE = 10**8
MAX_MODULES = 1024  #: layers or experts; public models have some hundreds
WIDTH: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2}  #: bytes of a number


class UnknownSizeError(ModelError):
    """A model that may be in order, but whose configuration is not at hand."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder. Sizes are numbers of elements: ``queries`` and ``keys`` of all heads of one layer together, ``keys``
    once (values are as many). ``intermediate`` counts the experts that one token visits."""

    kind: str
    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool
    norms_heads: bool = False  #: whether queries and keys are normalised, head by head
    stacked: bool = False  #: whether its files hold experts one by one, which the model has in one tensor

    @property
    def scorer_parameters(self) -> int:
        """As a preference model: the head is one row."""
        return self.parameters - (0 if self.tied else self.vocabulary * self.hidden) + self.hidden


def read_architecture(model: str, known: Mapping[str, str]) -> Architecture:
    """Of a directory, a hub name or a miniature. ``known``: model -> a file or directory to read instead.

    Raises UnknownSizeError when nothing says how large the model is, and ModelError when it cannot be used.
    """
    if model in known:
        return _of_file(model, expand_home(known[model]))
    if model.startswith(_MINIATURE):
        return _miniature(model)
    if not is_hub_name(model):
        return _of_file(model, expand_home(model))
    return _of_content(model, _hub_config(model))


def _of_file(model: str, path: Path) -> Architecture:
    return _of_content(model, read_bytes(path / CONFIG_JSON if is_directory(path) else path, model))


def _of_content(model: str, content: bytes) -> Architecture:
    try:
        return _architecture(content)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from error
    except Exception as error:  # whatever transformers meets in a configuration that came from anywhere
        raise ModelError(f"{model}: {CONFIG_JSON}: {describe_model_error(error)}") from error


def _hub_config(model: str) -> bytes:
    """From the local cache, or else from the hub, which is asked once and not long. Nothing is stored."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, CONFIG_JSON)
    except HFValidationError as error:
        raise ModelError(f"{model}: is no name of the hub: {error}") from error
    return read_bytes(Path(cached), model) if isinstance(cached, str) else _asked(model)


@functools.lru_cache(maxsize=64)
def _asked(model: str) -> bytes:
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    if constants.HF_HUB_OFFLINE:
        raise UnknownSizeError(f"{model}: is not in the local cache, and HF_HUB_OFFLINE is set")
    request = Request(hf_hub_url(model, CONFIG_JSON), headers=build_hf_headers())
    try:
        with urlopen(request, timeout=ASK_HUB_S) as answer:
            return bytes(answer.read(MAX_JSON_BYTES))
    except HTTPError as error:
        raise UnknownSizeError(f"{model}: the hub does not show its {CONFIG_JSON} (status {error.code})") from error
    except OSError as error:
        raise UnknownSizeError(f"{model}: the hub cannot be reached ({type(error).__name__})") from error


@functools.lru_cache(maxsize=64)
def _architecture(content: bytes) -> Architecture:
    """Raises ModelError for an architecture that transformers does not know or that generates no text, and whatever
    transformers raises for one that cannot be built."""
    from transformers import CONFIG_MAPPING

    kind = parse_model_json(ModelConfig, content, CONFIG_JSON).model_type
    if kind is None:
        raise ModelError(f"{CONFIG_JSON} names no model_type")
    if kind not in CONFIG_MAPPING:
        shown = format_value(kind)
        raise ModelError(f"its architecture {shown!r} is unknown to transformers, and so to trainers and engines")
    values = json.loads(content)
    for key in (*CHOICES_OF_KERNELS, "model_type"):
        values.pop(key, None)
    return of_config(CONFIG_MAPPING[kind].from_dict(values))


def of_config(config: Any) -> Architecture:
    """The shape that a transformers configuration describes. Raises ModelError for one that is no decoder of text."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    text = config.get_text_config()
    _check_numbers(text)
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    experts = getattr(text, "num_experts_per_tok", None) or 1
    wide = getattr(text, "moe_intermediate_size", None) if experts > 1 else None
    model = _on_meta(config)
    return Architecture(
        kind=config.model_type,
        parameters=sum(parameter.numel() for parameter in model.parameters()),  # a tied head counts once
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=(wide or text.intermediate_size) * experts,
        heads=heads,
        queries=heads * head_dim,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * head_dim,
        vocabulary=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        norms_heads="qwen3" in config.model_type,
        stacked=any(isinstance(one, WeightConverter) for one in get_model_conversion_mapping(model)),
    )


def _check_numbers(text: Any) -> None:
    """Raises ModelError for sizes that no decoder has: modules are made one by one, even without memory."""
    for name in SIZES:
        size = getattr(text, name, None)
        if size is None:
            raise ModelError(f"{CONFIG_JSON} lacks {name}")
        if not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE:
            raise ModelError(f"{CONFIG_JSON}: {name}={format_value(size)} is no number from 1 to {LARGEST_SIZE:,}")
    for name, value in vars(text).items():
        if name.endswith(("layers", "experts")) and isinstance(value, int) and value > MAX_MODULES:
            raise ModelError(f"{CONFIG_JSON}: {name}={format_value(value)} is more than {MAX_MODULES:,}")


def _on_meta(config: Any) -> Any:
    """The causal language model, without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(f"its architecture {config.model_type!r} generates no text")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _miniature(model: str) -> Architecture:
    from transformers import LlamaConfig

    from rlaif.miniature.models import FEEDBACK, MAX_VOCABULARY, POLICY

    size = FEEDBACK if model == f"{_MINIATURE}feedback" else POLICY
    return of_config(
        LlamaConfig(
            vocab_size=MAX_VOCABULARY,
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.num_layers,
            num_attention_heads=size.num_heads,
            tie_word_embeddings=size.tied,
        )
    )
