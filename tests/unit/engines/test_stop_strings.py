"""Stop strings are found at the token that completes them, however the text is split into tokens."""

from __future__ import annotations

from random import Random

import pytest

from rlaif.engines.stop_strings import StopStrings
from tests.tricky_tokenizers import bpe, chat, spaced

STOPS = [("\n\nHuman:", "\n\nCritique Request:"), ("é",), ("。",), (" end",), ("a ",), ("the",), (":",)]
WORDS = ["\n\nHuman:", "\n\nCritique Request: why", "Human", "\n\n", ":", " é", "élan", "。", "end", "a the", "x", "  "]


def first_stop(tokenizer, ids, stop):
    """As by decoding everything after each token."""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        if any(one in text for one in stop):
            return end
    return None


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("make", [bpe, chat, spaced])
def test_as_found_by_decoding_after_every_token(make, stop):
    tokenizer, rng = make(), Random(0)
    stop_strings = StopStrings(tokenizer, stop)
    for _ in range(40):
        text = " ".join(rng.choices(WORDS, k=6))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        reached = next((end for end in range(1, len(ids) + 1) if stop_strings.completed_by(ids[:end])), None)
        assert reached == first_stop(tokenizer, ids, stop), text
