"""Thoughts of thinking models, which come before what they say: ``<think>...</think>`` and its variants.

A thought is never an answer: not to a user, not to a labeller, and not in a training set.
"""

from __future__ import annotations

import re

from rlaif.errors import RequestError
from rlaif.records import Turn

_NAMES = "(?:seed:)?(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)"
THOUGHT_TAG = re.compile(rf"[<◁](?P<end>/?){_NAMES}[>▷]|\[(?P<end_>/?)THINK\]", re.IGNORECASE)
_OPENED = re.compile(rf"(?P<tag>[<◁]{_NAMES}[>▷]|\[THINK\])(?P<blank>\s*)\Z", re.IGNORECASE)


def without_thoughts(text: str, *, opened: bool = False) -> str | None:
    """What ``text`` says besides thoughts, stripped; None when a thought in it has no end.

    ``opened``: the prompt has opened a thought, so the text begins inside one. Where nothing has, an end without a
    beginning still ends a thought: everything up to it.
    """
    inside, start, num_ended = opened, 0, 0
    said: list[str] = []
    for tag in THOUGHT_TAG.finditer(text):
        is_end = bool(tag["end"] or tag["end_"])
        if is_end and not inside and num_ended:
            continue  # a stray tag: what was said before it was no thought
        if not inside and is_end:
            said.clear()
        elif not inside:
            said.append(text[start : tag.start()])
        inside, start, num_ended = not is_end, tag.end(), num_ended + is_end
    return None if inside else "".join((*said, text[start:])).strip()


def written_answer(text: str) -> str | None:
    """An answer from a data set or an earlier turn, as others see it: without the thought that it begins with.

    None when that thought has no end. A tag anywhere else is a word like any other, and is kept.
    """
    first = THOUGHT_TAG.match(text.lstrip())
    return without_thoughts(text) if first and not (first["end"] or first["end_"]) else text


def heard(turn: Turn) -> str:
    """What a turn says to whoever answers it. Raises RequestError for an answer that is an unfinished thought."""
    said = written_answer(turn.text) if turn.role == "assistant" else turn.text
    if said is None:
        raise RequestError("an earlier answer is an unfinished thought")
    return said


def opens_thought(prompt: str) -> bool:
    """Whether a prompt, or its end, leaves an answer inside a thought."""
    return _OPENED.search(prompt) is not None


def closing_of(prompt: str) -> str:
    """What closes the thought that a prompt opens, as templates of thinking models close an empty one; or ""."""
    opened = _OPENED.search(prompt)
    if opened is None:
        return ""
    end = f"{opened['tag'][0]}/{opened['tag'][1:]}"
    return f"{end}\n\n" if opened["blank"].endswith("\n") else f"\n{end}\n\n"
