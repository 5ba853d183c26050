"""Ratings by their probabilities: what the feedback model would give, 1 to 5 or 1 to 10, without sampling it.

Where "10" begins with the token of "1", one more look after that token separates their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlaif.errors import ModelError
from rlaif.interfaces import ChoiceScorer
from rlaif.prompting.tokenization import Pieces, append_text, common_prefix, encode, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


async def rating_probs(engine: ChoiceScorer, question: Pieces, ratings: Sequence[int]) -> tuple[float, ...]:
    """P(rating), for each of ``ratings`` as the next one."""
    ids, ends = rating_ids(engine.tokenizer, question, ratings)
    firsts = tuple(dict.fromkeys(end[0] for end in ends))
    logprobs = dict(zip(firsts, await engine.choice_logprobs(ids, firsts), strict=True))
    probs = [math.exp(logprobs[end[0]]) for end in ends]
    if len(firsts) < len(ends):  # "10" begins with the token of "1"
        (zero_after_one,) = await engine.choice_logprobs((*ids, ends[-1][0]), (ends[-1][1],))
        probs[-1] *= math.exp(zero_after_one)
        probs[0] -= probs[-1]
    return tuple(probs)


def rating_ids(
    tokenizer: PreTrainedTokenizerFast, question: Pieces, ratings: Sequence[int]
) -> tuple[list[int], list[list[int]]]:
    """Prompt ids, and the token ids that each rating adds to them.

    Raises ModelError for a tokenizer that gives the ratings no distinct next tokens.
    """
    endings = [encode(tokenizer, append_text(question[-1], f" {rating}")) for rating in ratings]
    num_shared = len(common_prefix(endings))
    ends = [ids[num_shared:] for ids in endings]
    one, *others, last = (end[0] if end else None for end in ends)
    distinct = len({one, *others}) == len(ratings) - 1 and None not in (one, *others, last) and last not in others
    if not distinct or (last == one and len(ends[-1]) < 2):
        raise ModelError(f"the tokenizer gives the ratings 1 to {ratings[-1]} no distinct next tokens")
    return prompt_ids(tokenizer, Pieces(question[:-1])) + endings[0][:num_shared], ends
