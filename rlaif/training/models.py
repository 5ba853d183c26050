"""Trainable models: a causal LM that returns log-probabilities, a scorer that returns scalars, and their files.

Legend: ``B`` rows, ``T`` padded width, ``H`` hidden size, ``V`` vocabulary, ``N`` selected positions, given as flat
indices into [B, T] (``batches.spans``). Only selected hidden states reach a head, so no [B, T, V] logits exist.

What is kept for the backward pass decides how large a model and how long a row fits. ``checkpoint_activations`` keeps
the inputs of each layer only (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). The head, whose
logits are float32 and as wide as the vocabulary, always works on a chunk of targets at a time.

Rows are padded on the right and no attention mask is passed: under causal attention no real token ever looks at a
pad after it, so log-probabilities are those of the unpadded row, and attention may take its fastest path. ``verify``
checks this, and that the head is a plain linear one, on every model that is loaded.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from rlaif.config.section import Dtype
from rlaif.config.trainer import Trainer
from rlaif.errors import ModelError
from rlaif.training.deepspeed_config import ConfigDict
from rlaif.training.gathering import gathered
from rlaif.training.partitioned import gathered_in_use, load_partitioned

transformers_logging.disable_progress_bar()
HEAD_LOGITS = 2**26  #: computed at once by the head, 256 MiB in float32


class PolicyModel(nn.Module):
    """A causal LM, asked for the log-probabilities of given tokens."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.language_model = language_model
        self.num_chunks = 1  #: of the head's work; the same on all ranks, which gather its weights for each (ZeRO-3)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        targets: Tensor,
        temperature: float = 1.0,
        with_entropy: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probability [N] of ``targets`` [N] after the tokens up to ``positions`` [N]; entropy [N] when asked."""
        hidden = self.language_model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        chosen = hidden.flatten(0, 1)[positions]
        if self.num_chunks == 1:
            return self._head(chosen, targets, temperature, with_entropy)
        chunks = zip(chosen.tensor_split(self.num_chunks), targets.tensor_split(self.num_chunks), strict=True)
        parts = [checkpoint(self._head, *chunk, temperature, with_entropy, use_reentrant=False) for chunk in chunks]
        logprobs, entropies = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropies) if with_entropy else None

    def _head(
        self, hidden: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As ``forward``, from the hidden states [N, H] at the positions."""
        logits = self.language_model.get_output_embeddings()(hidden).float()
        if temperature != 1.0:
            logits = logits / temperature
        logprobs = -functional.cross_entropy(logits, targets, reduction="none")
        return logprobs, _entropy(logits) if with_entropy else None


class ScoreHead(nn.Linear):
    """A scalar head that computes in float32 from the weights as they are, as vLLM's pooler does: in bfloat16, scores
    of 4 to 8 would be 0.03 apart."""

    def forward(self, hidden: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(hidden.float(), self.weight.float(), bias)


class ScalarModel(nn.Module):
    """A sequence classifier with one label, asked for its head's output at given positions.

    At the last token this is the preference score; at every position before a response token, the value.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Scalars [N] in score units, float32."""
        hidden = self.classifier.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        return self.classifier.score(hidden.flatten(0, 1)[positions]).squeeze(-1)


def _entropy(logits: Tensor) -> Tensor:
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def save_memory(model: nn.Module, trainer: Trainer) -> None:
    """Let the head work in chunks and, if ``trainer`` says so, layers keep only what goes into them for the backward
    pass, which then computes the rest again. Raises ModelError for an architecture that cannot."""
    if isinstance(model, PolicyModel):
        vocabulary = model.language_model.config.get_text_config().vocab_size
        model.num_chunks = math.ceil(trainer.micro_batch_tokens * vocabulary / HEAD_LOGITS)
    if trainer.checkpoints_activations:
        network = next(part for part in model.modules() if isinstance(part, PreTrainedModel))
        try:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise ModelError(f"checkpoint_activations: {error}") from error


def without_dropout(model: nn.Module) -> None:
    """Set every dropout to zero. Unlike after ``eval()``, layers can still be checkpointed, as they are in training."""
    for part in model.modules():
        for name, value in vars(part).items():
            if isinstance(value, float) and ((name == "p" and isinstance(part, nn.Dropout)) or "dropout" in name):
                setattr(part, name, 0.0)


def load_policy(path: str, dtype: Dtype, partition: ConfigDict | None = None) -> PolicyModel:
    """A causal LM from a directory or hub name, in training mode; partitioned among the ranks while it is loaded if
    ``partition`` says how (``partition_config``). Raises ModelError."""
    language_model = _load(AutoModelForCausalLM, path, dtype, partition)
    model = PolicyModel(language_model)
    verify(model, path)
    return model


def load_scorer(path: str, dtype: Dtype, partition: ConfigDict | None = None) -> ScalarModel:
    """A saved preference model with its head, loaded as by ``load_policy``. Raises ModelError when the directory holds
    no scalar head."""
    try:
        architectures = AutoConfig.from_pretrained(path, trust_remote_code=False).architectures or ()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be loaded as a model: {error}") from error
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise ModelError(f"{path}: is not a preference model (architectures: {list(architectures)})")
    return ScalarModel(_classifier(path, dtype, partition))


def new_scorer(
    base_model: str, dtype: Dtype, tokenizer: PreTrainedTokenizerFast, seed: int, partition: ConfigDict | None = None
) -> ScalarModel:
    """A preference model on ``base_model``'s backbone with a new head, and a padding id that is not the EOS; loaded as
    by ``load_policy``.

    The head is normal with standard deviation 1 / (H + 1): small, so that the first loss is close to log 2, and not
    zero, so that the backbone has a gradient from the first step. Drawn from ``seed``, the same on every rank.
    The padding token is set in ``tokenizer`` too.
    """
    resolve_padding(tokenizer)
    num_tokens = tokenizer.pad_token_id + 1
    classifier = _classifier(base_model, dtype, partition, num_tokens)
    if classifier.get_input_embeddings().num_embeddings < num_tokens:
        classifier.resize_token_embeddings(num_tokens, mean_resizing=False)
    classifier.config.pad_token_id = tokenizer.pad_token_id
    classifier.config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad(), gathered(classifier.score.weight, changes=True):
        shape = classifier.score.weight.shape
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / (shape[1] + 1)
        classifier.score.weight.copy_(drawn)
    return ScalarModel(classifier)


def resolve_padding(tokenizer: PreTrainedTokenizerFast) -> None:
    """Give ``tokenizer`` a padding token other than the EOS: its own, its unk, or a new one."""
    eos = tokenizer.eos_token
    if tokenizer.pad_token is None or tokenizer.pad_token == eos:
        usable_unk = tokenizer.unk_token is not None and tokenizer.unk_token != eos
        tokenizer.add_special_tokens({"pad_token": tokenizer.unk_token if usable_unk else "<|pad|>"})


def _classifier(path: str, dtype: Dtype, partition: ConfigDict | None, num_tokens: int = 0) -> PreTrainedModel:
    classifier = _load(AutoModelForSequenceClassification, path, dtype, partition, num_tokens, num_labels=1)
    if not isinstance(getattr(classifier, "score", None), nn.Linear):
        raise ModelError(f"{path}: {type(classifier).__name__} has no linear `score` head")
    classifier.score.__class__ = ScoreHead  # not another module: its weight keeps name and place
    return classifier


def _load(
    auto: Any, path: str, dtype: Dtype, partition: ConfigDict | None, num_tokens: int = 0, **settings: Any
) -> PreTrainedModel:
    """With ``num_tokens`` the model needs embeddings for so many, and gets a new head: a partitioned one has room for
    them from the start, and needs no head in its files."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a new head is announced as an error; ours is initialised by the caller
    values, model = getattr(torch, dtype), None
    try:
        if partition is not None:
            config = AutoConfig.from_pretrained(path, trust_remote_code=False, **settings)
            text = config.get_text_config()
            text.vocab_size = max(text.vocab_size, num_tokens)
            model = load_partitioned(auto, path, config, values, partition, "score.weight" if num_tokens else None)
        if model is None:
            model = auto.from_pretrained(path, dtype=values, trust_remote_code=False, use_safetensors=True, **settings)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be loaded as a model: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    model.train()
    return model


def verify(model: PolicyModel, path: str) -> None:
    """Compare with the stock forward pass, padded and not. Raises ModelError for a model that this file misreads
    (logits changed after the head, attention that looks ahead)."""
    language_model = model.language_model.eval()
    ids = torch.arange(4).remainder(language_model.config.vocab_size).unsqueeze(0)
    with torch.no_grad(), gathered_in_use(language_model):  # not inference_mode: ZeRO-3 keeps what it gathered in it
        stock = language_model(input_ids=ids[:, :3]).logits[0, 1].float().log_softmax(-1)[ids[0, 2]]
        ours, _ = model(ids, torch.tensor([1]), ids[0, 2:3])
    tolerance = 1e-3 if language_model.dtype == torch.float32 else 5e-2
    if (stock - ours[0]).abs() > tolerance:
        raise ModelError(
            f"{path}: {type(language_model).__name__} is not a causal model with a plain output head "
            f"(log-probability {ours.item():.4f} here, {stock.item():.4f} in transformers)"
        )
    model.train()
