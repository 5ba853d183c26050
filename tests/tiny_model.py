"""A tiny random Llama with a byte-level BPE of its own, for tests that need real model files."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["Human: how do I bake bread?", "Assistant: mix flour and water, then wait.", "I will not help with that."]


def make(path: Path, seed: int = 0, hidden: int = 32, layers: int = 2, pad_is_eos: bool = True) -> str:
    """Save the model at ``path`` (tied embeddings) and return the path as a string."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(WORDS, vocab_size=300, special_tokens=["<|eos|>"], show_progress=False)
    pad = "<|eos|>" if pad_is_eos else "<|pad|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|eos|>", pad_token=pad)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
