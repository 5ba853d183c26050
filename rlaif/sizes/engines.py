"""Bytes of one engine, and how many tokens its KV cache holds, by vLLM's own bookkeeping.

vLLM takes ``gpu_memory_fraction`` of a card. What weights, activations and its process leave of that is the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlaif.config.schema import PoolSettings
from rlaif.sizes.architecture import WIDTH, Architecture
from rlaif.sizes.training import GIBIBYTE, Parts

VLLM_CONTEXT = int(0.9 * GIBIBYTE)  #: CUDA context, cuBLAS, attention workspace: assumed
NCCL = int(0.5 * GIBIBYTE)  #: of a tensor-parallel rank: assumed
BLOCK_TOKENS = 16  #: of the cache on GPUs
#: Tokens of one forward pass by the card's memory: vLLM's defaults for engines in one process (``arg_utils.py``).
LARGE_CARD, LARGE_BATCH, SMALL_BATCH = 70 * GIBIBYTE, 16384, 8192
#: Bytes of one logit in the sampler: in the dtype, float32, log-softmax and its copy.
SAMPLED_LOGIT_BYTES = 14
ENGINE_HOST = int(4.0 * GIBIBYTE)  #: a process with CUDA and vLLM
ENGINE_HOST_CPU = int(1.4 * GIBIBYTE)  #: likewise, without CUDA, and without the cache
SCRIPTED_HOST = int(0.3 * GIBIBYTE)
LARGEST_FILE = 5 * GIBIBYTE  #: weight files are read one at a time, each at most this large by convention


@dataclass(frozen=True, kw_only=True)
class EngineMemory:
    """Bytes of one tensor-parallel rank of an engine. ``budget`` is all that it may take of its card (0: no GPU)."""

    budget: int
    parts: Parts  #: without the cache
    token_bytes: int  #: of one token in the cache
    host: int
    max_length: int

    @property
    def cache(self) -> int:
        """Bytes for the KV cache; negative when there is no room for any."""
        return self.budget - sum(self.parts.values())

    @property
    def cached_tokens(self) -> int:
        blocks = self.cache // (self.token_bytes * BLOCK_TOKENS)
        return max(0, blocks) * BLOCK_TOKENS

    @property
    def sequences(self) -> float:
        """Sequences of the greatest length that the cache holds at once."""
        return self.cached_tokens / self.max_length


def token_bytes(model: Architecture, settings: PoolSettings) -> int:
    """Keys and values of one token in all layers, on one rank. Ranks beyond the number of key heads hold copies."""
    head_dim = model.queries // model.heads
    heads = model.keys // head_dim
    return 2 * model.layers * -(-heads // settings.tensor_parallel) * head_dim * WIDTH[settings.dtype]


def engine_memory(model: Architecture, settings: PoolSettings, card: int, *, is_scorer: bool) -> EngineMemory:
    """On a card of ``card`` bytes, which a CPU engine has not."""
    width, ranks = WIDTH[settings.dtype], settings.tensor_parallel
    weights = width * -(-(model.scorer_parameters if is_scorer else model.parameters) // ranks)
    if settings.gpus == 0:
        cache = int(settings.kv_cache_gib * GIBIBYTE)
        host = ENGINE_HOST_CPU + weights + cache
        parts, budget = {"weights": weights}, weights + cache
    else:
        batch = max(LARGE_BATCH if card >= LARGE_CARD else SMALL_BATCH, settings.max_length if is_scorer else 0)
        logits = 0 if is_scorer else SAMPLED_LOGIT_BYTES * settings.max_in_flight * model.vocabulary
        parts = {
            "weights": weights,
            "activations": batch * width * (4 * model.hidden + 3 * model.intermediate // ranks) + logits,
            "context": VLLM_CONTEXT + (NCCL if ranks > 1 else 0),
        }
        budget = int(settings.gpu_memory_fraction * card)
        host = ENGINE_HOST + min(weights, LARGEST_FILE)
    return EngineMemory(
        budget=budget,
        parts=parts,
        token_bytes=token_bytes(model, settings),
        host=host,
        max_length=settings.max_length,
    )
