"""Pairs of answers that a user wants labelled (``rlaif label``).

Human comparisons in the shapes of ``data.pairs`` (hh-rlhf, TRL, explicit): ``chosen`` becomes answer_1, with a gold
label of 1; both orders are judged, so its position gives nothing away. Pairs without a verdict: ``{"prompt",
"answer_1", "answer_2"}``, which is also what a run's own comparisons/ holds, with an optional ``gold`` in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rlaif.data.conversations import parse_conversation
from rlaif.data.fields import require
from rlaif.data.pairs import parse_pair
from rlaif.data.rows import BadRow, Quarantine, SourceRow, read_records
from rlaif.records import Axis, Comparison, Status, Turn

JUDGED_FIELDS, UNJUDGED_FIELDS = ("chosen", "rejected"), ("answer_1", "answer_2")


def read_comparisons(source: str, quarantine: Quarantine) -> Iterator[Comparison]:
    """Stream the pairs of ``source`` (file, directory or ``hf:NAME``); a bad row goes to ``quarantine``.

    Each row is read in its own shape; a row with two shapes or none is bad, as are pairs whose dialogues differ
    before the last answer and pairs with an empty answer. Raises DataError as ``data.rows`` does.
    """
    return read_records(source, _comparison, quarantine)


def _comparison(row: SourceRow) -> Comparison:
    judged = any(name in row.fields for name in JUDGED_FIELDS)
    unjudged = any(name in row.fields for name in UNJUDGED_FIELDS)
    if judged and unjudged:
        raise BadRow("fields `chosen`/`rejected` and `answer_1`/`answer_2` appear side by side; give one pair")
    if judged:
        pair = parse_pair(row)
        return _parsed(row, pair.prompt, pair.chosen, pair.rejected, gold=1.0)
    if not unjudged:
        raise BadRow("no pair: neither `chosen` and `rejected` nor `answer_1` and `answer_2`")
    prompt = parse_conversation(require(row.fields, "prompt"), "prompt")
    return _parsed(row, prompt, _answer(row, "answer_1"), _answer(row, "answer_2"), gold=_gold(row))


def _answer(row: SourceRow, name: str) -> str:
    value = require(row.fields, name)
    if not isinstance(value, str):
        raise BadRow(f"field `{name}` must be text")
    if not value.strip():
        raise BadRow(f"field `{name}`: the answer is empty")
    return value.strip()


def _gold(row: SourceRow) -> float | None:
    value = row.fields.get("gold")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRow("field `gold` must be a number in [0, 1]: P(answer_1 better)")
    return float(value)


def _parsed(row: SourceRow, prompt: tuple[Turn, ...], answer_1: str, answer_2: str, gold: float | None) -> Comparison:
    return replace(
        unsampled_comparison(row.id, prompt, answer_1, answer_2, gold=gold), source_file=row.file, source_row=row.number
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
