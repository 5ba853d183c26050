"""Chat templates: what they are rendered with, and what they write around the texts of a dialogue.

A template never sees a text. It renders a mark for each message, and what it writes before, between and after the marks
(the *gaps*) is put around the texts as they are. So a template cannot cut a text at ``</think>``, no text can change
the tokens of a gap, and each sequence of roles is rendered once, however many dialogues have it.

Three rules make a rendering depend on nothing but the dialogue:
1. Neighbouring messages of one role are joined by a blank line, because many templates require roles to alternate.
2. ``strftime_now`` and ``date_string`` are those of ``ChatFormat.day``, whatever the day is.
3. Where the prompt must not leave a thought open, ``enable_thinking`` is false, and a ``<think>`` that the template
   opens all the same is closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from rlaif.errors import RequestError, describe_error
from rlaif.prompting.caches import remember_short
from rlaif.prompting.thoughts import closing_of
from rlaif.prompting.tokenization import MAX_MESSAGE_CHARS, ControlText, Pieces, neutralize, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: What templates are told without a run: the day that the templates of Llama 3 name themselves.
DEFAULT_DAY = date(2024, 7, 26)
MARK = "\ue000{}\ue001"  #: private-use characters around the number of a message

MAX_CACHED_ROLES = 64  #: longest sequence of roles that is remembered

Message = tuple[str, str | Pieces]  #: a role, as templates name it, and what is said


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """A chat template and what it is rendered with. Travels with tasks."""

    template: str | None = None  #: None: the tokenizer's own
    kwargs: tuple[tuple[str, bool | int | float | str], ...] = ()
    day: date = DEFAULT_DAY
    may_think: bool = True  #: whether an answer may begin with a thought that the template opens

    def fixed_variables(self) -> Mapping[str, bool | int | float | str]:
        """What the template can look at besides the messages and the day."""
        return {**({} if self.may_think else {"enable_thinking": False}), **dict(self.kwargs)}

    def variables(self) -> Mapping[str, object]:
        moment = datetime.combine(self.day, time())
        dated = {"date_string": moment.strftime("%d %b %Y"), "strftime_now": moment.strftime}
        return {**dated, **self.fixed_variables()}


#: The tokenizer's own template.
DEFAULT_FORMAT = ChatFormat()


def join_neighbours(messages: Sequence[Message]) -> list[Message]:
    """``messages`` with those of one role in a row made one, a blank line between their texts."""
    grouped = groupby(messages, key=lambda message: message[0])
    return [(role, _joined([text for _, text in group])) for role, group in grouped]


def _joined(texts: Sequence[str | Pieces]) -> str | Pieces:
    if not any(isinstance(text, Pieces) for text in texts):
        return "\n\n".join(map(str, texts))
    joined: list[str] = []
    for text in texts:
        joined += [ControlText("\n\n")] if joined else []
        joined += text if isinstance(text, Pieces) else [text]
    return Pieces(joined)


def layout(tokenizer: PreTrainedTokenizerFast, format: ChatFormat, messages: Sequence[Message]) -> Pieces:
    """The prompt: gaps as ControlText, texts as pieces of their own. The last piece is the invitation to answer.

    Within a message, ControlText is fixed text of ours, and joins the gap next to it. Raises RequestError when the
    template refuses the dialogue, or loses part of it.
    """
    joined = join_neighbours(messages)
    first, *others = gaps(tokenizer, format, tuple(role for role, _ in joined))
    pieces: list[str] = [ControlText(first)]
    for (_, said), gap in zip(joined, others, strict=True):
        for piece in (*(said if isinstance(said, Pieces) else (said,)), ControlText(gap)):
            _append(pieces, piece, tokenizer, format)
    return Pieces(pieces)


def _append(pieces: list[str], piece: str, tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> None:
    last = pieces[-1]
    if isinstance(piece, ControlText) and isinstance(last, ControlText):
        pieces[-1] = last.followed_by(piece)
    elif isinstance(piece, ControlText):
        pieces.append(piece)
    else:
        text = break_delimiters(tokenizer, format, piece)
        if last.endswith(" ") and isinstance(last, ControlText):  # words are tokenized with the space before them
            pieces[-1], text = ControlText(last[:-1]), f" {text}"
        pieces.append(text)


# ------------------------------------------------------------------------------------------------------- gaps
@remember_short(1024, lambda tokenizer, format, roles, invites=True: len(roles), longest=MAX_CACHED_ROLES)
def gaps(
    tokenizer: PreTrainedTokenizerFast, format: ChatFormat, roles: tuple[str, ...], invites: bool = True
) -> tuple[str, ...]:
    """What the template writes before, between and after the texts of messages with ``roles``: one more than these.

    Without ``invites``, nothing invites another answer. Raises RequestError when the template refuses these roles, or
    drops, repeats or reorders a text.
    """
    marks = [MARK.format(number) for number in range(len(roles))]
    rendered = _rendered(tokenizer, format, list(zip(roles, marks, strict=True)), invites)
    pieces = re.split(MARK.format(r"(\d+)"), rendered)
    if [int(number) for number in pieces[1::2]] != list(range(len(roles))):
        raise RequestError(f"the chat template drops, repeats or reorders the texts of {', '.join(roles)}")
    *before, last = pieces[::2]
    return (*before, last + closing_of(last)) if invites and not format.may_think else (*before, last)


def has_system_role(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> bool:
    """Whether the template shows a system turn, and shows it first: found by rendering one."""
    try:
        for roles in (("system", "user"), ("system", "user", "assistant", "user")):
            gaps(tokenizer, format, roles)
    except RequestError:
        return False
    return True


def thought_closing(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str:
    """What is added to the template's invitation so that it leaves no thought open; "" where nothing is."""
    as_written = replace(format, may_think=True, kwargs=tuple(format.fixed_variables().items()))
    return gaps(tokenizer, format, ("user",))[-1].removeprefix(gaps(tokenizer, as_written, ("user",))[-1])


def _rendered(
    tokenizer: PreTrainedTokenizerFast, format: ChatFormat, messages: Sequence[tuple[str, str]], invites: bool
) -> str:
    try:
        rendered: str = tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in messages],
            chat_template=format.template,
            tokenize=False,
            add_generation_prompt=invites,
            **format.variables(),
        )
        rendered.encode()  # half a character is nothing that could be tokenized
        return rendered
    except Exception as error:  # a template is a program: nested too deeply, or of a type that is none
        roles = ", ".join(role for role, _ in messages)
        reason = describe_error(error)[:MAX_MESSAGE_CHARS]
        raise RequestError(f"the chat template refuses the roles {roles}: {reason}") from error


def answer_prefix(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str:
    """White space that the template writes between its invitation and an answer: a space for some."""
    invitation = gaps(tokenizer, format, ("user",))[-1]
    before = gaps(tokenizer, format, ("user", "assistant"), invites=False)[1]
    prefix = before.removeprefix(invitation)
    return prefix if prefix.isspace() and before.startswith(invitation) else ""


def turn_end(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> str | None:
    """The special token with which the template ends the last answer; None when it does so in another way."""
    closing = gaps(tokenizer, format, ("user", "assistant"), invites=False)[-1].lstrip()
    names = sorted(special_tokens(tokenizer), key=len, reverse=True)
    return next((name for name in names if closing.startswith(name)), None)


# ------------------------------------------------------------------------------------------------- delimiters
# Both orders and all principles show the same texts.
@remember_short(1024, lambda tokenizer, format, text: len(text))
def break_delimiters(tokenizer: PreTrainedTokenizerFast, format: ChatFormat, text: str) -> str:
    """``text`` with a space inside whatever the template or the tokenizer would take for a delimiter."""
    text = neutralize(tokenizer, text)
    pattern = _delimiters(tokenizer, format)
    while pattern is not None and pattern.search(text):
        text = pattern.sub(lambda match: _broken(match[0]), text)
    return text


def _broken(delimiter: str) -> str:
    """``delimiter`` with a space in it; a line of a single character, such as ``>``, behind a backslash."""
    start = re.search(r"\S", delimiter)
    assert start is not None
    if len(delimiter.strip()) == 1:
        return f"{delimiter[: start.start()]}\\{delimiter[start.start() :]}"
    place = start.end()
    if delimiter[start.start()].isalnum() and (mark := re.search(r"[^\w\s]", delimiter)):
        place = mark.start()
    return f"{delimiter[:place]} {delimiter[place:]}"


_BRACKETED = re.compile(r"<<?[^\s<>]+>>?|\[[^\s\[\]]+\]")
_PROBED_ROLES = (("user", "assistant", "user"), ("system", "user", "assistant", "user"))
Place = Literal["anywhere", "line", "start of a line"]


@lru_cache(maxsize=64)
def _delimiters(tokenizer: PreTrainedTokenizerFast, format: ChatFormat) -> re.Pattern[str] | None:
    """What marks a turn in this template without being a special token: ``[INST]``, ``<|user|>``, ``### Response:``."""
    found: set[tuple[str, Place]] = set()
    for roles in _PROBED_ROLES:
        for variant in (format, replace(format, may_think=not format.may_think)):
            try:
                before, *between = gaps(tokenizer, variant, roles)
            except RequestError:  # a template that has no system role
                continue
            for gap in (before[before.rstrip().rfind("\n") + 1 :], *between):
                found.update(_marks(gap, special_tokens(tokenizer)))
            found.update((mark, "anywhere") for mark in _BRACKETED.findall(_without(before, special_tokens(tokenizer))))
    patterns = {
        "anywhere": "{}",
        "line": r"^[ \t]*{}[ \t]*$",
        "start of a line": r"^[ \t]*{}",
    }
    ordered = sorted(found, key=lambda mark: (-len(mark[0]), mark))
    whole = "|".join(patterns[place].format(re.escape(mark)) for mark, place in ordered)
    return re.compile(whole, re.MULTILINE) if whole else None


def _marks(gap: str, specials: Mapping[str, int]) -> Iterator[tuple[str, Place]]:
    """The parts of a gap that are no special tokens and that a text must not hold, and where.

    Brackets and their like count anywhere. Bare words count only where no special token guards them, and on a line of
    their own: ``assistant`` after ``<|im_start|>`` is a word like any other.
    """
    guarded = any(name in gap for name in specials)
    for number, line in enumerate(_without(gap, specials).split("\n")):
        words = line.strip()
        bracketed = _BRACKETED.findall(words)
        yield from ((mark, "anywhere") for mark in bracketed)
        rest = _BRACKETED.sub(" ", words).strip()
        if not rest or bracketed:
            continue
        if re.fullmatch(r"[\w\s]+|[^\w\s]+", rest):
            if not guarded:
                yield rest, "line"
        else:
            yield rest, "start of a line" if number else "anywhere"


def _without(gap: str, specials: Mapping[str, int]) -> str:
    names = sorted(specials, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, names)), "\n", gap) if names else gap
