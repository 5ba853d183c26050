"""Training texts as tensors.

Shapes: B sequences of a batch, T tokens of the longest (right-padded; attention is causal, so padding changes nothing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rlaif.miniature.corpus import Segment, TwoChoice
from rlaif.prompting.questions import LETTERS

NOT_LEARNED = -100

_Row = TypeVar("_Row")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``targets`` [B, T]: the next token at each position, or NOT_LEARNED; ``soft`` [B, 2]: a question's P of A, B."""

    ids: Tensor
    targets: Tensor
    soft: Tensor | None = None


# ---------------------------------------------------------------------------------------------------- encoding
def encode_segments(
    tokenizer: PreTrainedTokenizerFast, sequences: Sequence[Sequence[Segment]]
) -> list[tuple[list[int], list[int]]]:
    """Ids and targets of each sequence. After a learned segment the target is EOS, whatever comes next."""
    encoded = iter(tokenizer([s.text for sequence in sequences for s in sequence])["input_ids"])
    rows = []
    for sequence in sequences:
        ids: list[int] = []
        targets: list[int] = []
        for segment in sequence:
            part = next(encoded)
            if segment.learn:
                targets[-1] = part[0]
                targets += [*part[1:], tokenizer.eos_token_id]
            else:
                targets += [NOT_LEARNED] * len(part)
            ids += part
        rows.append((ids, targets))
    return rows


def encode_questions(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]
) -> tuple[list[list[int]], tuple[int, int]]:
    """Ids up to where the letters differ, and the two letters' token ids."""
    both = [tokenizer([question + letter for question in questions])["input_ids"] for letter in LETTERS]
    prompts, letters = [], set()
    for with_a, with_b in zip(*both, strict=True):
        split = next(i for i, (a, b) in enumerate(zip(with_a, with_b, strict=True)) if a != b)
        prompts.append(with_a[:split])
        letters.add((with_a[split], with_b[split]))
    assert len(letters) == 1, "the letters' tokens depend on the question"
    return prompts, letters.pop()


def dialogue_batches(
    tokenizer: PreTrainedTokenizerFast, sequences: Sequence[Sequence[Segment]], batch_size: int, rng: Random
) -> list[Batch]:
    """Batches of sequences of similar length, in random order."""
    rows = encode_segments(tokenizer, sequences)
    pad = tokenizer.pad_token_id
    return [
        Batch(
            ids=_padded([ids for ids, _ in group], pad),
            targets=_padded([targets for _, targets in group], NOT_LEARNED),
        )
        for group in _grouped(rows, batch_size, rng, key=lambda row: len(row[0]))
    ]


def question_batches(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[TwoChoice], batch_size: int, rng: Random
) -> list[Batch]:
    """Batches of questions of similar length, learned at their last position only."""
    prompts, letters = encode_questions(tokenizer, [q.text for q in questions])
    rows = list(zip(prompts, questions, strict=True))
    batches = []
    for group in _grouped(rows, batch_size, rng, key=lambda row: len(row[0])):
        targets = [[NOT_LEARNED] * (len(ids) - 1) + [letters[0]] for ids, _ in group]
        soft = torch.tensor([[q.prob_a, 1 - q.prob_a] for _, q in group])
        batches.append(
            Batch(
                ids=_padded([ids for ids, _ in group], tokenizer.pad_token_id),
                targets=_padded(targets, NOT_LEARNED),
                soft=soft,
            )
        )
    return batches


def _grouped(rows: Sequence[_Row], batch_size: int, rng: Random, key: Callable[[_Row], int]) -> Iterator[list[_Row]]:
    """Groups of similar length: sorted within stretches of 16 batches, then shuffled."""
    groups: list[list[_Row]] = []
    for start in range(0, len(rows), 16 * batch_size):
        stretch = sorted(rows[start : start + 16 * batch_size], key=key)
        groups += [stretch[i : i + batch_size] for i in range(0, len(stretch), batch_size)]
    rng.shuffle(groups)
    return iter(groups)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
