"""What a source can be used as: the readers of rows, and what each of them makes of a row, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from rlaif.data.answers import answer_fields
from rlaif.data.comparisons import parse_comparison
from rlaif.data.dialogues.conversations import form_of
from rlaif.data.pairs import parse_pair
from rlaif.data.prompts import parse_prompt, prompt_field
from rlaif.data.rows import Fields, SourceRow
from rlaif.data.votes import parse_question
from rlaif.records import Comparison, PreferencePair, Prompt, ScoredAnswers

SourceRecord = Prompt | PreferencePair | Comparison | ScoredAnswers


@dataclass(frozen=True, kw_only=True)
class Reader:
    """``keys``: where a configuration (or a command) names such sources. ``parse`` raises BadRow; ``shape`` names the
    fields that it has read of a good row, and their form."""

    what: str
    keys: str
    parse: Callable[[SourceRow], SourceRecord]
    shape: Callable[[Fields], str]


def _prompt_shape(fields: Fields) -> str:
    name = prompt_field(fields)
    return "" if name is None else f"`{name}` ({form_of(fields[name], name)})"


def _answers_shape(fields: Fields) -> str:
    """The fields of the answers, and the form of the first that holds a text or messages."""
    names = answer_fields(fields)
    return f"{', '.join(f'`{name}`' for name in names)} ({form_of(fields[names[0]], names[0])})"


def _votes_shape(fields: Fields) -> str:
    return "`question`, `answers`"


#: By the name of the use, the richest first: a pair holds a prompt as well.
READERS: Mapping[str, Reader] = {
    "votes": Reader(what="questions with voted answers", keys="data.votes", parse=parse_question, shape=_votes_shape),
    "pairs": Reader(what="human comparisons", keys="data.helpful_pairs", parse=parse_pair, shape=_answers_shape),
    "comparisons": Reader(
        what="pairs of answers to be labelled", keys="rlaif label", parse=parse_comparison, shape=_answers_shape
    ),
    "prompts": Reader(
        what="conversations that await an answer",
        keys="data.red_team, data.helpful, evaluation.red_team, evaluation.helpful",
        parse=partial(parse_prompt, axis="red_team"),
        shape=_prompt_shape,
    ),
}
