"""When two prompts count as the same: by their words, whatever their case, punctuation and white space."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rlaif.ids import fingerprint
from rlaif.records import Turn

_BETWEEN_WORDS = re.compile(r"[\W_]+")
_STARTS = "\x00-\x7f\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff\uac00-\ud7a3"  #: ASCII, kana, ideographs, Korean syllables
#: Parts of a text that can be normalised by themselves: none of ``_STARTS`` combines with what precedes it. A mark
#: combines with any number of others, which takes time by their square, so that a run of other characters is cut.
_PARTS = re.compile(f"[{_STARTS}]+[^{_STARTS}]{{0,1000}}|[^{_STARTS}]{{1,1000}}")


def prompt_key(turns: Sequence[Turn]) -> str:
    """The fingerprint of a conversation's words; near-duplicates have the same, whatever system turn precedes them."""
    return fingerprint([(turn.role, normalized_words(turn.text)) for turn in turns if turn.role != "system"])


def normalized_words(text: str) -> str:
    """``text`` in small letters with a space between words; text without a word is itself."""
    words = _BETWEEN_WORDS.sub(" ", _normalized(text).casefold()).strip()
    return words or text


def _normalized(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", part) for part in _PARTS.findall(text))
