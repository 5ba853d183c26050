"""Random Llama models of a few thousand parameters with a byte-level tokenizer: enough to catch a wrong engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rlaif.interfaces import Probe

MAX_LENGTH = 256


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes, then ``<s> </s> <pad>``; no merges, so that every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def tiny_config(tied: bool) -> LlamaConfig:
    tokenizer = tiny_tokenizer()
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def tiny_lm(seed: int, *, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(tiny_config(tied)).eval()


def tiny_pm(seed: int) -> LlamaForSequenceClassification:
    """A model with one label, whose head has a large scale so that scores differ by more than rounding."""
    config = tiny_config(tied=False)
    config.num_labels = 1
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.score.weight)
    return model


def saved(model: PreTrainedModel, path: Path) -> str:
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


# ------------------------------------------------------------------------------------------- as learners send them
def served_tensors(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Float32 copies of all parameters under their Hugging Face names, a tied head included.

    Tied parameters share one array. NumPy has no bfloat16, hence float32; engines round to their own type.
    """
    copies: dict[int, np.ndarray] = {}
    tensors = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in copies:
            copies[tensor.data_ptr()] = tensor.detach().to("cpu", torch.float32, copy=True).numpy()
        tensors[name] = copies[tensor.data_ptr()]
    return tensors


@torch.no_grad()
def probe_of(model: PreTrainedModel, token_ids: Sequence[Sequence[int]]) -> Probe:
    """What ``model`` computes for some sequences of at least two tokens: see ``Probe``.

    A preference model (sequence classification) reads the last token, which must not be its padding token.
    """
    was_training = model.training
    model.eval()
    try:
        values = [_probe_value(model, list(ids)) for ids in token_ids]
    finally:
        model.train(was_training)
    return Probe(token_ids=tuple(tuple(ids) for ids in token_ids), values=tuple(values))


def _probe_value(model: PreTrainedModel, ids: list[int]) -> float:
    logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    if logits.ndim == 1:
        return logits[0].item()
    return logits[-2].log_softmax(-1)[ids[-1]].item()
