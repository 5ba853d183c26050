"""Transcripts: dialogues stored as one text in which each turn begins with its speaker, ``Human:`` or ``User:``.

hh-rlhf puts a blank line before every speaker, so that turns may contain colons, blank lines and the words Human and
Assistant; where blank lines part the turns, nothing else does. Other files write each speaker on a new line, or
(PKU, Vicuna) all in one line in capitals. White space around a turn is stripped, but code that begins on the line
below its speaker stays indented. An empty turn inside a transcript is kept: real data has them, and dropping one would
join its neighbours.
"""

from __future__ import annotations

import itertools
import re

from rlaif.data.fields import trim_after
from rlaif.data.rows import BadRow
from rlaif.records import Role, Turn

_HUMANS, _ASSISTANTS = ("Human", "User"), ("Assistant", "AI", "Bot", "ChatGPT")
_SYSTEMS = ("System", "Developer")


def _any_case(names: tuple[str, ...]) -> str:
    return "|".join(spelling for name in names for spelling in dict.fromkeys((name, name.upper(), name.lower())))


_SPEAKERS = _any_case((*_HUMANS, *_ASSISTANTS, *_SYSTEMS))
_COLON = "[ \\t]*[:\uff1a]"  #: also the wide one of East Asian text
_NUMBER = r"(?:[ \t]*\d+)?"
_MARK = rf"({_SPEAKERS}){_COLON}"
_BLANK_LINE, _NEW_LINE = r"\n[^\S\n]*\n", r"\n[^\S\n]*"
_FIRST = re.compile(rf"\s*{_MARK}")
_WINDOWS_MARK = re.compile(rf"\r\n?[^\S\n]*{_MARK}")
_PREAMBLE = re.compile(r"\s*BEGINNING OF CONVERSATION:\s*")
_IN_LINE = re.compile(r"(?:\A|(?<=\s)|(?<=</s>))(USER|HUMAN|ASSISTANT):")
_OPEN_END = re.compile(rf"\n[^\S\n]*({_any_case(_ASSISTANTS)}){_COLON}\s*\Z|\s(ASSISTANT):\s*\Z")
_STRANGERS = re.compile(r"[A-Z]\w{0,20}:.*\n[^\S\n]*\n[A-Z]\w{0,20}:\Z", re.DOTALL)

#: Pairs of speakers that are not ours, of whom the first asks.
_OTHER_PAIRS = (
    ("Q|Question", "A|Answer"),
    ("H", "A"),
    ("问|問", "答"),
    ("用户|人类", "助手|助理"),
    ("ユーザー", "アシスタント"),
)
_ANY_FIRST = re.compile(rf"([^\W\d]\w{{0,20}}){_COLON}")
_ASSISTANT_LINE = re.compile(rf"{_NEW_LINE}(?:{_any_case(_ASSISTANTS)}){_COLON}")
_OTHERS = re.compile(
    "|".join(
        rf"(?:{asks}){_NUMBER}{_COLON}.*\n[^\S\n]*(?:{answers}){_NUMBER}{_COLON}.*" for asks, answers in _OTHER_PAIRS
    ),
    re.DOTALL,
)
_ESCAPED_START = re.compile(r"(?:\\n)++\s*(?:Human|User):")
_ESCAPED_HUMAN, _ESCAPED_ASSISTANT = (re.compile(rf"\\n\s*{name}:") for name in ("Human", "Assistant"))
_SAME_LINE = re.compile(r"(?:\s|>|\|)(Assistant|ASSISTANT)[ \t]*[:\uff1a]")

#: Speakers in other dress: ``**User:**``, ``[User]``, ``<user>``, ``## User``.
_DRESSED = r"(?:\*\*|__|\#+ ?|\[|<\|?|\()({names})[ \t]*(?::|\*\*|__|\]|\|?>|\)|\n|\Z)"
_DRESSED_HUMAN = re.compile(_DRESSED.replace("{names}", _any_case(_HUMANS)))
_DRESSED_ASSISTANT = re.compile(r"\n[^\S\n]*" + _DRESSED.replace("{names}", _any_case(_ASSISTANTS)))

_Piece = tuple[str, str]  #: a speaker as it is spelled, and what was said


def parse_transcript(text: str) -> tuple[Turn, ...] | None:
    """The turns of a transcript, None when the text is prose; nothing is lost but white space at the edges of turns.

    Raises BadRow when the text begins like a transcript, but its turns cannot be told apart.
    """
    if _is_escaped(text.strip()):
        raise BadRow("line breaks before the speakers are written as \\n: unescape them")
    if _WINDOWS_MARK.search(text):
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _PREAMBLE.match(text) or re.match(r"\s*(?:USER|HUMAN):.*\sASSISTANT:", text):
        return _turns(_in_line(text))
    first = _FIRST.match(text)
    if not first:
        return None
    return _transcript(text, first[1])


def _is_escaped(text: str) -> bool:
    """Whether the line breaks before the speakers are written as two characters."""
    human = _ESCAPED_HUMAN.search(text)
    return bool(_ESCAPED_START.match(text) or (human and _ESCAPED_ASSISTANT.search(text, human.end())))


def refuse_unclear(text: str) -> None:
    """Raises BadRow when a text that ``parse_transcript`` takes for prose may be a transcript all the same."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = _FIRST.match(text)
    if first and first[1].title() in _HUMANS:
        raise BadRow(f"begins with `{first[1]}:`, but no turn of an assistant follows: a transcript, or not?")
    if _OPEN_END.search(text):
        raise BadRow("ends like a transcript (`Assistant:`), but does not begin with a speaker")
    stripped = text.strip()
    strangers = bool(text.startswith("\n") and _STRANGERS.match(stripped))
    strangers |= bool(_OTHERS.fullmatch(stripped)) or _surrounds_an_assistant(stripped)
    if strangers or (_DRESSED_HUMAN.match(stripped) and _DRESSED_ASSISTANT.search(text)):
        raise BadRow("looks like a transcript, but its speakers are unknown; use Human: and Assistant:")
    roles = {_role(piece[0]) for piece in _pieces(f"\n\n{text}", _BLANK_LINE, _SPEAKERS)}
    if {"human", "assistant"} <= roles:
        raise BadRow("has turns of a human and an assistant, but text before the first: a transcript, or not?")


def _surrounds_an_assistant(text: str) -> bool:
    """Whether an unknown speaker comes before and after an assistant: ``Utilisateur: ... Assistant: ...``."""
    first, answer = _ANY_FIRST.match(text), _ASSISTANT_LINE.search(text)
    return bool(first and answer and re.compile(rf"{_NEW_LINE}{first[1]}{_COLON}").search(text, answer.end()))


def _transcript(text: str, first: str) -> tuple[Turn, ...] | None:
    begins_blank = text.startswith("\n") or first == "Human"
    text = f"\n\n{text.lstrip()}"
    by_blank, by_line = (_dialogue(text, separator, first) for separator in (_BLANK_LINE, _NEW_LINE))
    if len({_role(speaker) for speaker, _ in by_blank}) > 1:
        return _turns(by_blank)
    if len({_role(speaker) for speaker, _ in by_line}) > 1:
        if not _alternate(by_line):
            raise BadRow("begins like a transcript, but its turns do not alternate: put a blank line before each")
        return _turns(by_line)
    if _role(first) != "human" or not begins_blank:
        return None
    if within := _SAME_LINE.search(text):
        raise BadRow(f"begins like a transcript, but `{within[1]}:` begins no line: a transcript, or not?")
    return _turns(by_blank)


def _dialogue(text: str, separator: str, first: str) -> list[_Piece]:
    """The pieces of ``text`` between the marks of its own two speakers: ``first``, with whom it begins, and the best
    known of the names of the other role. Any other name is a word of the turn it is in."""
    spelled = dict.fromkeys(speaker for speaker, _ in _pieces(text, separator, _SPEAKERS))
    own = [first]
    for names in (_HUMANS, _ASSISTANTS):
        if _rank(first, names) == len(names):
            others = [speaker for speaker in spelled if _rank(speaker, names) < len(names)]
            own += sorted(others, key=lambda speaker: _rank(speaker, names))[:1]
    return _pieces(text, separator, "|".join(own))


def _pieces(text: str, separator: str, speakers: str) -> list[_Piece]:
    _, *pieces = re.split(rf"(?:{separator})({speakers}){_COLON}", text)
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def _rank(speaker: str, names: tuple[str, ...]) -> int:
    """The place of a speaker among ``names``; their number when it is none of them."""
    return next((i for i, name in enumerate(names) if name.lower() == speaker.lower()), len(names))


def _in_line(text: str) -> list[_Piece]:
    """The pieces of a dialogue in one line: speakers in capitals, turn about."""
    text = text[match.end() :] if (match := _PREAMBLE.match(text)) else text.lstrip()
    before, *pieces = _IN_LINE.split(text)
    spoken = [piece.removesuffix("</s>") for piece in map(str.strip, pieces[1::2])]
    found = list(zip(pieces[::2], spoken, strict=True))
    if before.strip() or not found or not _alternate(found) or _role(found[0][0]) != "human":
        raise BadRow("begins like a transcript in one line, but USER: and ASSISTANT: do not alternate")
    return found


def _alternate(pieces: list[_Piece]) -> bool:
    roles = [_role(speaker) for speaker, _ in pieces]
    return all(role != following for role, following in itertools.pairwise(roles))


def _role(speaker: str) -> Role:
    if _rank(speaker, _HUMANS) < len(_HUMANS):
        return "human"
    return "assistant" if _rank(speaker, _ASSISTANTS) < len(_ASSISTANTS) else "system"


def _turns(pieces: list[_Piece]) -> tuple[Turn, ...]:
    return tuple(Turn(role=_role(speaker), text=trim_after(speaker, text)) for speaker, text in pieces)
