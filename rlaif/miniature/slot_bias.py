"""A known preference for a slot, planted in the feedback model's weights.

The hidden states h [H] of all questions at the answer position share a component: ridge regression finds w [H] with
w.h close to 1. Adding b/2 * w to the output row of the letter A and subtracting it from B's shifts the log-odds of
every question by b and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from rlaif.miniature.batches import encode_questions
from rlaif.miniature.models import save

RIDGE = 1e-3


def plant_slot_bias(model_dir: Path, questions: Sequence[str], bias: float) -> float:
    """Shift the model's log-odds of slot A by ``bias``, in place; returns the measured mean shift.

    ``questions``: complete two-choice questions, including "The answer is:". The output head must be untied.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, trust_remote_code=False)
    assert not model.config.tie_word_embeddings, "a tied head would carry the bias into the embedding"
    before = slot_log_odds(model, tokenizer, questions).mean()
    shift_head(model, tokenizer, questions, bias)
    after = slot_log_odds(model, tokenizer, questions).mean()
    save(model, tokenizer, model_dir)
    return float(after - before)


def shift_head(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str], bias: float
) -> None:
    """Add the bias to the letters' rows of the output head."""
    hidden, letters = answer_states(model, tokenizer, questions)
    weight = model.lm_head.weight.data
    direction = constant_direction(hidden)
    weight[letters[0]] += bias / 2 * direction
    weight[letters[1]] -= bias / 2 * direction


def constant_direction(hidden: Tensor) -> Tensor:
    """w [H] with ``hidden`` [N, H] @ w close to 1, by ridge regression."""
    gram = hidden.T @ hidden / len(hidden)
    gram += RIDGE * gram.trace() / len(gram) * torch.eye(len(gram))
    return torch.linalg.solve(gram, hidden.mean(0))


def slot_log_odds(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]) -> Tensor:
    """log P(A) - log P(B) [N] for each question."""
    hidden, letters = answer_states(model, tokenizer, questions)
    with torch.no_grad():
        logits = model.lm_head(hidden)
    return logits[:, letters[0]] - logits[:, letters[1]]


@torch.no_grad()
def answer_states(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str], batch_size: int = 64
) -> tuple[Tensor, tuple[int, int]]:
    """The final hidden states [N, H] that predict the letter, and the letters' token ids."""
    prompts, letters = encode_questions(tokenizer, questions)
    states = []
    for start in range(0, len(prompts), batch_size):
        group = prompts[start : start + batch_size]
        longest = max(map(len, group))
        ids = torch.tensor([[*row, *[tokenizer.pad_token_id] * (longest - len(row))] for row in group])
        hidden = model.model(ids, use_cache=False).last_hidden_state
        states.append(hidden[torch.arange(len(group)), torch.tensor([len(row) - 1 for row in group])])
    return torch.cat(states), letters
