"""Answers that a user brings to be examined (``rlaif evaluate FILE``), with people's labels where there are any.

A row has a prompt, in any shape of ``data.prompts``, and an answer: ``completion``, ``response``, ``answer`` or
``output``. It may have ``model`` (whose answer it is), ``type`` or ``category``, and ``label``: what people say that
the answer does, as in XSTest's files. A prompt of one of XSTest's safe types asks for no harm; any other is taken to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rlaif.config.source import RowLimits, Source
from rlaif.data.fields import given_name, is_given, require_text, trim
from rlaif.data.mapped_fields import read_mapped
from rlaif.data.prompts import PROMPT_FIELDS, find_prompt
from rlaif.data.rows import BadRow, Quarantine, SourceRow
from rlaif.data.suites import CONTRAST, SAFE_TYPES
from rlaif.errors import format_value
from rlaif.ids import suite_id
from rlaif.records import Axis, RefusalClass, Status, SuiteAnswer

FINISHED = "answers"  #: the suite that they are counted under
_ANSWERS = ("completion", "response", "answer", "output")
_PROMPTS = tuple(name for name in PROMPT_FIELDS if name != "chosen")
#: What people's labels are called, in XSTest's files as well.
_LABELS: Mapping[str, RefusalClass] = {
    "compliance": "compliance",
    "full_compliance": "compliance",
    "1_full_compliance": "compliance",
    "partial": "partial",
    "partial_refusal": "partial",
    "3_partial_refusal": "partial",
    "refusal": "refusal",
    "full_refusal": "refusal",
    "2_full_refusal": "refusal",
}


def read_finished_answers(source: Source, quarantine: Quarantine, limits: RowLimits) -> Iterator[SuiteAnswer]:
    """Stream the answers of ``source``; a bad row goes to ``quarantine``. Raises DataError as ``read_prompts`` does."""
    return read_mapped(source, parse_finished_answer, quarantine, limits)


def parse_finished_answer(row: SourceRow) -> SuiteAnswer:
    """The answer in one row; an empty one is kept, with a status that says so. Raises BadRow."""
    fields = row.fields
    turns = find_prompt(fields, _PROMPTS)
    name = given_name(fields, _ANSWERS) or next((name for name in _ANSWERS if name in fields), None)
    if name is None:
        raise BadRow(f"field `completion` is missing, and so are {', '.join(f'`{name}`' for name in _ANSWERS[1:])}")
    text = trim(require_text(fields, name)) if is_given(fields, name) else ""
    model = trim(require_text(fields, "model")) if is_given(fields, "model") else "model"
    column = given_name(fields, ("type", "category"))
    category = trim(require_text(fields, column)) if column else ""
    axis: Axis = "helpful" if category in SAFE_TYPES else "red_team"
    return SuiteAnswer(
        id=suite_id(FINISHED, row.id_of(turns, text, model)),
        source_file=row.file,
        source_row=row.number,
        status=Status.OK if text else Status.INVALID,
        error=None if text else "empty answer",
        seconds=0.0,
        seed=0,
        model_version=model,
        axis=axis,
        snapshot=model,
        prompt=turns,
        text=text,
        token_ids=(),
        finish_reason="stop",
        suite=FINISHED,
        category=category.removeprefix(CONTRAST),
        gold=_gold(trim(require_text(fields, "label"))) if is_given(fields, "label") else None,
    )


def _gold(label: str) -> RefusalClass:
    if (found := _LABELS.get(label)) is None:
        raise BadRow(f"field `label` must be compliance, partial or refusal, not {format_value(label)}")
    return found
