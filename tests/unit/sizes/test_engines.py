"""The KV cache of an engine, by vLLM's bookkeeping."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig

from rlaif.config.schema import PoolSettings
from rlaif.sizes.architecture import Architecture, of_config
from rlaif.sizes.engines import engine_memory, token_bytes
from rlaif.sizes.training import GIBIBYTE
from tests.public_models import LLAMA_8B

CARD = int(79.1 * GIBIBYTE)


@pytest.fixture(scope="module")
def llama() -> Architecture:
    return of_config(LlamaConfig(**{key: value for key, value in LLAMA_8B.items() if key != "model_type"}))


def on_gpu(**settings: object) -> PoolSettings:
    return PoolSettings.model_validate({"gpus": 1, "dtype": "bfloat16", "max_length": 4096, **settings})


def test_a_token_has_keys_and_values_in_every_layer(llama: Architecture) -> None:
    assert token_bytes(llama, on_gpu()) == 2 * 32 * 8 * 128 * 2
    assert token_bytes(llama, on_gpu(dtype="float32")) == 2 * token_bytes(llama, on_gpu())
    assert token_bytes(llama, on_gpu(tensor_parallel=2)) == token_bytes(llama, on_gpu()) // 2
    assert token_bytes(llama, on_gpu(tensor_parallel=16)) == token_bytes(llama, on_gpu(tensor_parallel=8))


def test_the_cache_is_what_is_left_of_the_share(llama: Architecture) -> None:
    memory = engine_memory(llama, on_gpu(gpu_memory_fraction=0.9), CARD, is_scorer=False)
    assert memory.budget == int(0.9 * CARD)
    assert memory.parts["weights"] == 2 * 8_030_261_248
    assert memory.cache == memory.budget - sum(memory.parts.values())
    assert memory.cached_tokens % 16 == 0
    assert memory.cached_tokens == pytest.approx(memory.cache / 131072, abs=16)
    assert memory.sequences == memory.cached_tokens / 4096
    assert engine_memory(llama, on_gpu(gpu_memory_fraction=0.2), CARD, is_scorer=False).cached_tokens == 0


def test_tensor_parallel_ranks_share_the_weights(llama: Architecture) -> None:
    one, two = (engine_memory(llama, on_gpu(tensor_parallel=n), CARD, is_scorer=False) for n in (1, 2))
    assert two.parts["weights"] * 2 == one.parts["weights"]
    assert two.cache > one.cache


def test_a_scorer_has_no_output_head(llama: Architecture) -> None:
    judge, scorer = (engine_memory(llama, on_gpu(), CARD, is_scorer=scores) for scores in (False, True))
    assert judge.parts["weights"] - scorer.parts["weights"] == 2 * (128256 - 1) * 4096


def test_an_engine_without_a_gpu_has_its_cache_on_the_host(llama: Architecture) -> None:
    memory = engine_memory(llama, PoolSettings(kv_cache_gib=2.0), 0, is_scorer=False)
    assert memory.cache == 2 * GIBIBYTE
    assert memory.host > 4 * 8_030_261_248 + 2 * GIBIBYTE
