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

from rlaif.engines.checksums import as_numpy, bit_sum
from rlaif.interfaces import Engine, Probe, WeightBucket, Weights, WeightsHeader
from rlaif.training.gathering import plan_buckets

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
def weights_from(
    model: PreTrainedModel, version: int, sequences: Sequence[Sequence[int]], bucket_bytes: int = 2**16
) -> Weights:
    """As a learner sends ``model``, in its own dtype, with a probe of ``sequences``."""
    tensors = model.state_dict(keep_vars=True)
    buckets = []
    for bucket in plan_buckets(tensors, bucket_bytes):
        arrays = {id(tensor): as_numpy(tensor.detach().clone()) for tensor in bucket.values()}
        sums = {name: bit_sum(tensor) for name, tensor in bucket.items()}
        buckets.append(WeightBucket(tensors={name: arrays[id(t)] for name, t in bucket.items()}, checksums=sums))
    header = WeightsHeader(
        version=version,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        num_buckets=len(buckets),
        probe=probe_of(model, sequences),
    )
    return Weights(header=header, buckets=buckets)


async def send(engine: Engine, weights: Weights) -> None:
    """As a pool does it."""
    await engine.begin_weights(weights.header)
    for bucket in weights.buckets:
        await engine.load_weights(bucket)
    await engine.serve_weights()


def tensors_of(weights: Weights) -> dict[str, np.ndarray]:
    return {name: tensor for bucket in weights.buckets for name, tensor in bucket.tensors.items()}


@torch.no_grad()
def probe_of(model: PreTrainedModel, token_ids: Sequence[Sequence[int]]) -> Probe:
    """What ``model`` computes for some sequences of at least two tokens: see ``Probe``. All but the first token count.

    A preference model (sequence classification) reads the last token, which must not be its padding token.
    """
    was_training = model.training
    model.eval()
    try:
        values = [_probe_values(model, list(ids)) for ids in token_ids]
    finally:
        model.train(was_training)
    return Probe(token_ids=tuple(tuple(ids) for ids in token_ids), values=tuple(values))


def scores_of(model: PreTrainedModel, dialogues: Sequence[Sequence[int]]) -> list[float]:
    """By transformers, of a preference model."""
    return [score for (score,) in probe_of(model, dialogues).values]


def _probe_values(model: PreTrainedModel, ids: list[int]) -> tuple[float, ...]:
    logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    if logits.ndim == 1:
        return (logits[0].item(),)
    return tuple(logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist())
