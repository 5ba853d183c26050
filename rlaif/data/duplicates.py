"""When two prompts count as the same: by their words, whatever their case, punctuation and white space."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rlaif.ids import fingerprint
from rlaif.records import Turn

_BETWEEN_WORDS = re.compile(r"[\W_]+")


def prompt_key(turns: Sequence[Turn]) -> str:
    """The fingerprint of a conversation's words; near-duplicates have the same, whatever system turn precedes them."""
    return fingerprint([(turn.role, normalized_words(turn.text)) for turn in turns if turn.role != "system"])


def normalized_words(text: str) -> str:
    """``text`` in small letters with a space between words; text without a word is itself."""
    words = _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text
