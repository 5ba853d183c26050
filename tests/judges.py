"""Feedback models whose probabilities a test chooses."""

import math

from tests.tiny_models import tiny_tokenizer


class Rater:
    """A byte-level feedback model: says 1 .. 9 with probabilities ``firsts``, and a 0 after the 1 with ``ten``."""

    tokenizer = tiny_tokenizer()
    max_length = 4096

    def __init__(self, firsts: list[float], ten: float) -> None:
        self.by_digit = dict(zip("123456789", firsts, strict=True))
        self.ten = ten

    async def choice_logprobs(self, prompt_ids, choice_ids):
        said = self.tokenizer.decode(list(prompt_ids)).rpartition("The rating is:")[2].strip()
        digits = [self.tokenizer.decode([id]) for id in choice_ids]
        probs = [self.ten] if said == "1" else [self.by_digit[d] for d in digits]
        return tuple(math.log(p) for p in probs)
