"""What a source can be used as: the readers of rows, and what each of them makes of a row, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from rlaif.data.answers import answer_fields
from rlaif.data.comparisons import parse_comparison
from rlaif.data.excess import SourceRecord
from rlaif.data.pairs import parse_pair
from rlaif.data.prompts import parse_prompt, prompt_field
from rlaif.data.rows import Fields, SourceRow
from rlaif.data.votes import parse_question


@dataclass(frozen=True, kw_only=True)
class Reader:
    """``keys``: where a configuration (or a command) names such sources. ``parse`` raises BadRow; ``fields_of`` names
    the fields of a good row that it has read, that of the conversation first."""

    what: str
    keys: str
    parse: Callable[[SourceRow], SourceRecord]
    fields_of: Callable[[Fields], tuple[str, ...]]


def _prompt_fields(fields: Fields) -> tuple[str, ...]:
    name = prompt_field(fields)
    return () if name is None else (name,)


def _votes_fields(fields: Fields) -> tuple[str, ...]:
    return ("question", "answers")


#: By the name of the use, the richest first: a pair holds a prompt as well.
READERS: Mapping[str, Reader] = {
    "votes": Reader(
        what="questions with voted answers", keys="data.votes", parse=parse_question, fields_of=_votes_fields
    ),
    "pairs": Reader(what="human comparisons", keys="data.helpful_pairs", parse=parse_pair, fields_of=answer_fields),
    "comparisons": Reader(
        what="pairs of answers to be labelled", keys="rlaif label", parse=parse_comparison, fields_of=answer_fields
    ),
    "prompts": Reader(
        what="conversations that await an answer",
        keys="data.red_team, data.helpful, evaluation.red_team, evaluation.helpful",
        parse=partial(parse_prompt, axis="red_team"),
        fields_of=_prompt_fields,
    ),
}
