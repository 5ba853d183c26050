"""SmolLM2-135M-Instruct: a real tokenizer of 49,152 tokens, a real chat template, real logits."""

from __future__ import annotations

import pytest

from rlaif.config.schema import PoolSettings
from rlaif.prompting.tokenization import load_tokenizer

MAX_LENGTH = 512


@pytest.fixture(scope="session")
def tokenizer(small_model):
    return load_tokenizer(small_model)


def served_in(dtype: str) -> PoolSettings:
    return PoolSettings(max_length=MAX_LENGTH, max_in_flight=16, threads=2, kv_cache_gib=0.5, dtype=dtype)
