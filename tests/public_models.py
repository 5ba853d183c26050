"""Public models by their ``config.json`` alone, laid out as the hub's cache, so that plans need no network.

The numbers are those of each model's page on the hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
LLAMA_70B: dict[str, Any] = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
SMOLLM2_135M: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def qwen(hidden: int, intermediate: int, layers: int, heads: int, keys: int, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": hidden < 3584,
    }


QWEN_1_5B = qwen(1536, 8960, 28, 12, 2, 151936)
QWEN_7B = qwen(3584, 18944, 28, 28, 4, 152064)
QWEN_14B = qwen(5120, 13824, 48, 40, 8, 152064)
QWEN_72B = qwen(8192, 29568, 80, 64, 8, 152064)

#: By name on the hub, with the number of parameters that its page or report gives.
PUBLIC_MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "meta-llama/Llama-3.1-8B": (LLAMA_8B, 8_030_261_248),
    "meta-llama/Llama-3.1-8B-Instruct": (LLAMA_8B, 8_030_261_248),
    "meta-llama/Llama-3.1-70B": (LLAMA_70B, 70_553_706_496),
    "meta-llama/Llama-3.1-70B-Instruct": (LLAMA_70B, 70_553_706_496),
    "Qwen/Qwen2.5-1.5B": (QWEN_1_5B, 1_543_714_304),
    "Qwen/Qwen2.5-1.5B-Instruct": (QWEN_1_5B, 1_543_714_304),
    "Qwen/Qwen2.5-7B-Instruct": (QWEN_7B, 7_615_616_512),
    "Qwen/Qwen2.5-14B-Instruct": (QWEN_14B, 14_770_033_664),
    "Qwen/Qwen2.5-72B-Instruct": (QWEN_72B, 72_706_203_648),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (SMOLLM2_135M, 134_515_008),
}
REVISION = "0" * 40


def write_hub_cache(directory: Path) -> None:
    """The cache of ``huggingface_hub`` in ``directory``, with the configurations of the models above."""
    for name, (config, _) in PUBLIC_MODELS.items():
        root = directory / f"models--{name.replace('/', '--')}"
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(REVISION)
        snapshot = root / "snapshots" / REVISION
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(config))
