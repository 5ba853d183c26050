"""Stop strings, searched only where one could have ended: decoding after every token costs more than small models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPLACEMENT_CHARACTER = "\ufffd"  #: what a token that holds part of a character decodes to


class StopStrings:
    """The stop strings of a kind of request, for one tokenizer. None of ``stop`` is empty."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ends = {text[-1] for text in stop}
        self._always = any(end.isspace() for end in self._ends)  # a single token may decode without its space
        self._may_end: dict[int, bool] = {}

    def completed_by(self, token_ids: Sequence[int]) -> str | None:
        """The stop string that the last of an answer's ``token_ids`` completed, if it completed one."""
        if not self._may_end_with(token_ids[-1]):
            return None
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        return next((stop for stop in self._stop if stop in text), None)

    def _may_end_with(self, token_id: int) -> bool:
        """Whether a stop string's last character can be in the token; each token is decoded once."""
        known = self._may_end.get(token_id)
        if known is None:
            text = self._tokenizer.decode([token_id], skip_special_tokens=True)
            known = self._always or REPLACEMENT_CHARACTER in text or not self._ends.isdisjoint(text)
            self._may_end[token_id] = known
        return known


def stop_strings_for(tokenizer: PreTrainedTokenizerFast) -> Callable[[tuple[str, ...]], StopStrings]:
    """``StopStrings`` by their texts; requests with the same ones share what was learned about the tokens."""
    return lru_cache(lambda stop: StopStrings(tokenizer, stop))
