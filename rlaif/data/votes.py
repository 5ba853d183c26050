"""Questions with voted answers, for preference-model pretraining (Askell et al., arXiv 2112.00861).

A row: ``{"question": text, "answers": [{"text": text, "votes": int, "accepted": bool}]}``; ``accepted`` is optional.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlaif.data.fields import require, require_text
from rlaif.data.rows import BadRow, Quarantine, SourceRow, read_records
from rlaif.records import ScoredAnswer, ScoredAnswers


def read_votes(source: str, quarantine: Quarantine) -> Iterator[ScoredAnswers]:
    """Stream the questions of ``source`` (file, directory or ``hf:NAME``); a bad row goes to ``quarantine``.

    A question needs at least two answers. Raises DataError naming file, row and field when a file is
    missing, unreadable or empty, or has no usable row.
    """
    return read_records(source, _question, quarantine)


def _question(row: SourceRow) -> ScoredAnswers:
    question = require_text(row.fields, "question").strip()
    answers = require(row.fields, "answers")
    if not isinstance(answers, list) or len(answers) < 2:
        raise BadRow("field `answers` must be a list of at least two answers")
    return ScoredAnswers(
        id=row.id,
        source_file=row.file,
        source_row=row.number,
        question=question,
        answers=tuple(_answer(answer, f"answers[{index}]") for index, answer in enumerate(answers)),
    )


def _answer(answer: Any, name: str) -> ScoredAnswer:
    if not isinstance(answer, Mapping):
        raise BadRow(f"field `{name}` must be an object with text and votes")
    try:
        text = require_text(answer, "text").strip()
        votes, accepted = require(answer, "votes"), answer.get("accepted") or False
    except BadRow as error:
        raise BadRow(f"field `{name}`: {error}") from None
    if not isinstance(votes, int) or isinstance(votes, bool):
        raise BadRow(f"field `{name}.votes` must be a whole number")
    if not isinstance(accepted, bool):
        raise BadRow(f"field `{name}.accepted` must be true or false")
    return ScoredAnswer(text=text, votes=votes, accepted=accepted)
