"""Text that a chat template has rendered already: ``<|im_start|>user``, ``[INST]``, ``### Instruction:``.

Such a text is split where it has the template's own form from its first character to its last, and refused by name
otherwise: rendered once more, its marks would be words of the human.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlaif.data.dialogues.messages import ROLES, TOOL_ROLES
from rlaif.data.fields import trim_after
from rlaif.data.rows import BadRow
from rlaif.records import Role, Turn

_ROLE_NAMES = "|".join((*ROLES, *TOOL_ROLES))


@dataclass(frozen=True, kw_only=True)
class ChatMarks:
    """How one family of templates marks its turns: ``turn`` captures the role, ``end`` closes a turn."""

    name: str
    turn: re.Pattern[str]
    end: str = r"</s>|<\|endoftext\|>"
    start: str = r"<s>"  #: may precede the first turn


#: The families of templates, by what they write at the start of a turn.
_TEMPLATES = (
    ChatMarks(
        name="ChatML",
        turn=re.compile(rf"<\|im_start\|>\s*(?i:({_ROLE_NAMES}))\b[ \t]*\n?"),
        end=r"<\|im_end\|>|<\|endoftext\|>",
    ),
    ChatMarks(
        name="Llama 3",
        turn=re.compile(rf"<\|start_header_id\|>(?i:({_ROLE_NAMES}))<\|end_header_id\|>"),
        end=r"<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>",
        start=r"<\|begin_of_text\|>",
    ),
    ChatMarks(
        name="Llama 4",
        turn=re.compile(rf"<\|header_start\|>(?i:({_ROLE_NAMES}))<\|header_end\|>"),
        end=r"<\|eot\|>",
        start=r"<\|begin_of_text\|>",
    ),
    ChatMarks(
        name="Gemma",
        turn=re.compile(rf"<start_of_turn>(?i:({_ROLE_NAMES}))\b[ \t]*\n?"),
        end=r"<end_of_turn>|<eos>",
        start=r"<bos>",
    ),
    ChatMarks(
        name="Zephyr",
        turn=re.compile(rf"<\|(?i:({_ROLE_NAMES}))\|>"),
        end=r"</s>|<\|end\|>|<\|endoftext\|>|<\|eos\|>",
    ),
    ChatMarks(
        name="DeepSeek",
        turn=re.compile(rf"<\uff5c(?i:({_ROLE_NAMES}))\uff5c>"),
        end=r"<\uff5cend\u2581of\u2581sentence\uff5c>",
        start=r"<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    ),
    ChatMarks(name="Llama 2", turn=re.compile(r"\[(/?INST)\]")),
    ChatMarks(
        name="Command",
        turn=re.compile(r"<\|START_OF_TURN_TOKEN\|><\|(USER|CHATBOT|SYSTEM)_TOKEN\|>"),
        end=r"<\|END_OF_TURN_TOKEN\|>",
        start=r"<BOS_TOKEN>",
    ),
    ChatMarks(
        name="Alpaca",
        turn=re.compile(r"^\#\#\# ?(Instruction|Response|System|User|Human|Assistant|Prompter|AI)\b ?:", re.MULTILINE),
        start=r"<s>|Below is an instruction that describes a task[^\n]*+\n[^\n]*+",
    ),
)
#: Roles of messages, and what some templates call them.
_ROLES: Mapping[str, Role] = {
    **ROLES,
    **dict.fromkeys(("inst", "instruction"), "human"),
    **dict.fromkeys(("/inst", "response", "chatbot"), "assistant"),
}
_SYSTEM_IN_TURN = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
_SYSTEM_BEFORE = re.compile(r"\s*(?:<s>\s*)?\[SYSTEM_PROMPT\](.*?)\[/SYSTEM_PROMPT\](?=\s*\[INST\])", re.DOTALL)
_SYSTEM_MARK = re.compile(r"<</?SYS>>|\[/?SYSTEM_PROMPT\]")
_ANY_MARK = re.compile(
    r"<\|im_(?:start|end)\|>|<\|(?:start|end)_header_id\|>|<\|eot_id\|>|\[/?INST\]|<(?:start|end)_of_turn>"
)
_LAST_MARK = re.compile(r"(<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|endoftext\|>|<\|end_of_text\|>)\s*\Z")


def parse_rendered(text: str) -> tuple[Turn, ...] | None:
    """The turns of a text that a chat template rendered; None when it bears no such marks. Raises BadRow."""
    if system := _SYSTEM_BEFORE.match(text):
        turns = parse_rendered(text[system.end() :]) or ()
        return (Turn(role="system", text=system[1].strip()), *turns)
    for template in _TEMPLATES:
        marks = list(template.turn.finditer(text))
        roles = {_ROLES.get(mark[1].lower()) for mark in marks}
        if marks and _begins(text, template, marks[0]):
            return tuple(_turns(text, template, marks))
        if roles >= {"human", "assistant"}:
            raise BadRow(f"has text before its first {template.name} turn, and would be rendered twice")
    if last := _LAST_MARK.search(text):
        raise BadRow(f"ends with {last[1]}, the mark of a chat template, but does not begin like one")
    return None


def _begins(text: str, template: ChatMarks, mark: re.Match[str]) -> bool:
    return re.fullmatch(rf"\s*+(?:(?:{template.start})\s*+)*+", text[: mark.start()]) is not None


def _turns(text: str, template: ChatMarks, marks: list[re.Match[str]]) -> Iterator[Turn]:
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        role, said = mark[1].lower(), text[mark.end() : end]
        said = _without_ends(said, re.compile(rf"{template.end}|{template.start}"))
        if role in TOOL_ROLES:
            raise BadRow(f"tool turn in a rendered {template.name} template")
        if role == "inst" and mark is marks[0] and (system := _SYSTEM_IN_TURN.match(said)):
            yield Turn(role="system", text=system[1].strip())
            said = said[system.end() :]
        if _SYSTEM_MARK.search(said):
            raise BadRow(f"looks like a rendered {template.name} template, but its system turn cannot be told apart")
        if _ANY_MARK.search(said) or re.search(template.end, said):
            raise BadRow(f"looks like a rendered {template.name} template, but its turns cannot be told apart")
        yield Turn(role=_ROLES[role], text=trim_after(mark[0], said))


def _without_ends(said: str, mark: re.Pattern[str]) -> str:
    """``said`` without the marks, and the white space, that it ends with."""
    end = len(said)
    for match in reversed(list(mark.finditer(said))):
        if not said[match.end() : end].isspace() and match.end() < end:
            break
        end = match.start()
    return said[:end].rstrip()
