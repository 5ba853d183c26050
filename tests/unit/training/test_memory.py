"""What a rank keeps for the backward pass, at the width of real models: on the meta device, which has no memory."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, masking_utils

from rlaif.config.trainer import Trainer
from rlaif.training.models import HEAD_LOGITS, PolicyModel, save_memory

LLAMA_8B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
    max_position_embeddings=131072,
)
QWEN_1_5B = Qwen2Config(
    hidden_size=1536, intermediate_size=8960, num_attention_heads=12, num_key_value_heads=2, vocab_size=151936
)
NUM_TOKENS = 4096


@pytest.fixture(autouse=True)
def _no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers looks into the positions for packed rows, of which we have none; meta tensors have no values."""
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)


def kept(config, num_layers: int, *, saves_memory: bool, num_targets: int = 1) -> int:
    """Bytes kept between the two passes of a policy, parameters left out."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        model.base_model.layers = model.base_model.layers[:num_layers]
        policy = PolicyModel(model.train())
        ids = torch.zeros(1, NUM_TOKENS, dtype=torch.long)
        positions = torch.arange(num_targets)
        targets = torch.zeros(num_targets, dtype=torch.long)
    save_memory(policy, Trainer(checkpoint_activations=saves_memory, micro_batch_tokens=NUM_TOKENS))
    policy.num_chunks = policy.num_chunks if saves_memory else 1
    found = {parameter.untyped_storage()._cdata: 0 for parameter in policy.parameters()}
    held = []  # so that no storage takes another's place

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        found.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage().nbytes())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        policy(ids, positions, targets)
    return sum(found.values())


def per_token(config, *, saves_memory: bool) -> float:
    """KiB for each layer and token."""
    one, two = (kept(config, layers, saves_memory=saves_memory) for layers in (1, 2))
    return (two - one) / NUM_TOKENS / 1024


@pytest.mark.parametrize(("config", "with_it", "without"), [(LLAMA_8B, 12, 150), (QWEN_1_5B, 5, 60)])
def test_checkpointed_layers_keep_their_inputs_alone(config, with_it, without):
    assert config.hidden_size * 2 / 1024 <= per_token(config, saves_memory=True) < with_it
    assert per_token(config, saves_memory=False) > without


@pytest.mark.parametrize("config", [LLAMA_8B, QWEN_1_5B])
def test_a_chunked_head_keeps_no_logits(config):
    one, many = (kept(config, 1, saves_memory=True, num_targets=num) for num in (1, NUM_TOKENS))
    assert (many - one) / NUM_TOKENS < 5 * config.hidden_size
    one, many = (kept(config, 1, saves_memory=False, num_targets=num) for num in (1, NUM_TOKENS))
    assert (many - one) / NUM_TOKENS > 4 * config.vocab_size


def test_a_chunk_of_the_head_is_as_large_as_it_may_be():
    policy = PolicyModel(AutoModelForCausalLM.from_config(LlamaConfig(**SMALL)))
    for tokens, chunks in ((8192, 1), (HEAD_LOGITS // 1000, 1), (HEAD_LOGITS // 1000 + 1, 2), (HEAD_LOGITS // 100, 10)):
        save_memory(policy, Trainer(micro_batch_tokens=tokens))
        assert policy.num_chunks == chunks


SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 1000}
