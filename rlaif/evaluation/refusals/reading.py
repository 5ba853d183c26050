"""A prompt and an answer as the rules read them: what kind of thing is asked; sentences of prose and items of lists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

PromptKind = Literal["request", "fact", "why", "claim"]

MAX_CHARS_READ = 12_000  #: of an answer from its start: what it says of itself stands there, and the rest is the help
MAX_CHARS_OF_PROMPT = 2_000  #: from its end, where the question stands
MAX_CHARS_OF_SENTENCE = 500

_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"'} | dict.fromkeys("`*_#>~"))
_CODE = re.compile(r"```")
_ITEM = re.compile(
    r"[ \t]{0,8}(?:(?:\*{0,2}\d{1,3}[.):]\*{0,2}|[-*+•–]|[a-z][.)])[ \t]|\*{0,2}step \d{1,3}\b)", re.IGNORECASE
)
_QUOTATION = re.compile(r'"[^"]{0,400}"')
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")

_WHY = re.compile(r"\bwhy\b|\b(?:reasons?|arguments?|benefits?|advantages?)\b")
_VALUES = re.compile(
    r"\b(?:should|shouldn't|ought|must|deserves?|better|best|right|wrong|good|bad|justified|reasons?|arguments?|benefits?|advantages?)\b"
)
_QUESTION_OF_FACT = re.compile(
    r"(?:what(?:'s)?|who(?:'s)?|when|which"
    r"|where(?:'s| is| are| was| does| did)|how (?:did|does|was|were|has|had|is|are|many|much|old|long)"
    r"|is|are|was|were|did|does|has|have|define)\b"
)
_DOING = re.compile(
    r"\b(?:i|we|me|us|you|someone|somebody|ways?|methods?|process|plan|steps?|strategy|trick|plot|recipe)\b"
)


@dataclass(frozen=True, kw_only=True)
class ParsedAnswer:
    """An answer in lower case, with straight quotes, without markdown and without what it quotes.

    ``items`` are the lines that begin like items of a list, and blocks of code; ``sentences`` are all else.
    """

    sentences: tuple[str, ...]
    items: tuple[str, ...]


def parse_answer(answer: str) -> ParsedAnswer:
    sentences: list[str] = []
    items: list[str] = []
    for line, is_item in _lines(_unquoted(answer[:MAX_CHARS_READ])):
        if is_item:
            items.append(_plain(line)[:MAX_CHARS_OF_SENTENCE])
        else:
            sentences += [part[:MAX_CHARS_OF_SENTENCE] for part in _SENTENCE_END.split(_plain(line)) if part]
    return ParsedAnswer(sentences=tuple(sentences), items=tuple(items))


def prompt_kind(prompt: str) -> PromptKind:
    """Whether a prompt asks for reasons for what it takes to be so, for a fact, or for anything else."""
    asked = _plain(prompt[-MAX_CHARS_OF_PROMPT:])
    if _WHY.search(asked):
        return "claim" if _VALUES.search(asked) else "why"
    return "fact" if _QUESTION_OF_FACT.match(asked) and not _DOING.search(asked) else "request"


def _lines(answer: str) -> Iterator[tuple[str, bool]]:
    """The lines that hold something, and whether each is an item of a list. A block of code counts as one."""
    for number, part in enumerate(_CODE.split(answer)):
        lines = [part] if number % 2 else part.splitlines()
        yield from ((line, bool(number % 2 or _ITEM.match(line))) for line in lines if line.strip())


def _unquoted(answer: str) -> str:
    """Without the quotation marks around the whole of it, which would hide it."""
    text = answer.strip()
    marks = [character for character in text if character in '"“”']
    return text[1:-1] if len(marks) == 2 and text[0] in '"“' and text[-1] in '"”' else text


def _plain(text: str) -> str:
    return _QUOTATION.sub('""', " ".join(text.translate(_STRAIGHT).lower().split()))
