"""Pairs of answers that a user wants labelled (``rlaif label``).

Human comparisons in the shapes of ``data.pairs``: the better answer becomes answer_1, with a gold label of 1; both
orders are judged, so its position gives nothing away. Pairs without a verdict: ``{"prompt", "answer_1", "answer_2"}``,
which is also what a run's own comparisons/ holds, with an optional ``gold`` in [0, 1], and two responses whose verdict
is not given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rlaif.config.source import DEFAULT_LIMITS, RowLimits, Source
from rlaif.data.answers import judged_shape, unjudged_answers
from rlaif.data.dialogues.conversations import after_system_column, parse_conversation
from rlaif.data.dialogues.structures import parse_structure
from rlaif.data.fields import check_text, is_blank, is_given, number_of, refuse_beside, trim
from rlaif.data.mapped_fields import read_mapped
from rlaif.data.pairs import find_pair, prompt_before, read_answer
from rlaif.data.rows import BadRow, Fields, Quarantine, SourceRow
from rlaif.records import Axis, Comparison, Status, Turn


def read_comparisons(
    source: Source | str, quarantine: Quarantine, limits: RowLimits = DEFAULT_LIMITS
) -> Iterator[Comparison]:
    """Stream the pairs of ``source`` (a Source, or its text); a bad row goes to ``quarantine``.

    Each row is read in its own shape; a row with two shapes or none is bad, as are pairs whose dialogues differ
    before the last answer and pairs with an empty answer. Raises DataError as ``data.rows`` does.
    """
    return read_mapped(source, parse_comparison, quarantine, limits)


def parse_comparison(row: SourceRow) -> Comparison:
    """The comparison in one row. Raises BadRow."""
    refuse_beside(row.fields)
    judged, own = judged_shape(row.fields), is_given(row.fields, "answer_1") or is_given(row.fields, "answer_2")
    if own and (judged or is_given(row.fields, "chosen") or is_given(row.fields, "rejected")):
        raise BadRow("fields `chosen`/`rejected` and `answer_1`/`answer_2` appear side by side; give one pair")
    if judged or (not own and any(name in row.fields for name in ("chosen", "rejected"))):
        return _parsed(row, *find_pair(row.fields), gold=1.0)
    answers = unjudged_answers(row.fields)
    if answers is None:
        raise BadRow("no pair: neither `chosen` and `rejected` nor `answer_1` and `answer_2`")
    prompt = _prompt(row.fields)
    answer_1, answer_2 = (_answer(*answer) for answer in answers)
    return _parsed(row, prompt, answer_1, answer_2, gold=_gold(row))


def _prompt(fields: Fields) -> tuple[Turn, ...]:
    """May end with an assistant turn, as a run's own comparisons of such dialogues do."""
    if not is_given(fields, "prompt"):
        return prompt_before(fields)
    return after_system_column(fields, parse_conversation(fields["prompt"], "prompt"))


def _answer(name: str, value: Any) -> str:
    """A text, word for word, or a message. What looks like a transcript is an answer here."""
    if isinstance(value, str):
        if is_blank(value):
            raise BadRow(f"field `{name}`: the answer is empty")
        if parse_structure(check_text(value, name), name) is None:
            return trim(value)
    before, answer = read_answer(name, value)
    if before:
        raise BadRow(f"field `{name}` must be an answer, not a whole dialogue")
    return answer


def _gold(row: SourceRow) -> float | None:
    if not is_given(row.fields, "gold"):
        return None
    try:
        gold = number_of(row.fields["gold"], "gold")
    except BadRow:
        gold = -1
    if not 0 <= gold <= 1:
        raise BadRow("field `gold` must be a number in [0, 1]: P(answer_1 better)")
    return float(gold)


def _parsed(row: SourceRow, prompt: tuple[Turn, ...], answer_1: str, answer_2: str, gold: float | None) -> Comparison:
    return replace(
        unsampled_comparison(row.id_of(prompt, answer_1, answer_2, gold), prompt, answer_1, answer_2, gold=gold),
        source_file=row.file,
        source_row=row.number,
    )


def unsampled_comparison(
    id: str,
    prompt: tuple[Turn, ...],
    answer_1: str,
    answer_2: str,
    *,
    axis: Axis = "red_team",
    gold: float | None = None,
) -> Comparison:
    """A pair that was not sampled here: no token ids, no model."""
    return Comparison(
        id=id,
        source_file="",
        source_row=0,
        status=Status.OK,
        error=None,
        seconds=0.0,
        seed=0,
        model_version="",
        axis=axis,
        prompt=prompt,
        prompt_ids=(),
        answer_1=answer_1,
        answer_2=answer_2,
        token_ids_1=(),
        token_ids_2=(),
        policy_version=0,
        truncated=False,
        gold=gold,
    )
