"""Questions with voted answers, for preference-model pretraining (Askell et al., arXiv 2112.00861).

A row: ``{"question": text, "answers": [{"text": text, "votes": int, "accepted": bool}]}``; ``accepted`` is optional.
Instead of votes, answers may carry a ``pm_score`` (H4's Stack Exchange preferences). Empty answers are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlaif.config.source import DEFAULT_LIMITS, RowLimits, Source
from rlaif.data.dialogues.structures import parse_list, refuse_messages
from rlaif.data.fields import is_given, number_of, refuse_beside, require, require_text, system_column, trim
from rlaif.data.mapped_fields import read_mapped
from rlaif.data.rows import BadRow, Fields, Quarantine, SourceRow
from rlaif.records import ScoredAnswer, ScoredAnswers

MAX_SCORE = 62  #: a ``pm_score`` above it would take more votes than there are people


def read_votes(
    source: Source | str, quarantine: Quarantine, limits: RowLimits = DEFAULT_LIMITS
) -> Iterator[ScoredAnswers]:
    """Stream the questions of ``source`` (a Source, or its text); a bad row goes to ``quarantine``.

    A question needs at least two answers. Raises DataError naming file, row and field when a file is
    missing, unreadable or empty, or has no usable row.
    """
    return read_mapped(source, parse_question, quarantine, limits)


def parse_question(row: SourceRow) -> ScoredAnswers:
    """The question in one row. Raises BadRow."""
    refuse_beside(row.fields)
    if column := system_column(row.fields):
        raise BadRow(f"field `{column}`: questions with voted answers have no system turn; leave it out")
    question = trim(require_text(row.fields, "question"))
    refuse_messages(question, "question")
    answers = parse_list(require(row.fields, "answers"), "answers")
    if not isinstance(answers, list) or len(answers) < 2:
        raise BadRow("field `answers` must be a list of at least two answers")
    scored = [_answer(answer, f"answers[{index}]") for index, answer in enumerate(answers)]
    written = tuple(answer for answer in scored if answer is not None)
    if len(written) < 2:
        raise BadRow(f"field `answers` holds {len(written)} answers that are not empty; at least two are needed")
    id = row.id_of(question, written)
    return ScoredAnswers(id=id, source_file=row.file, source_row=row.number, question=question, answers=written)


def _answer(answer: Any, name: str) -> ScoredAnswer | None:
    """One answer; None when it is empty, as where its text was deleted."""
    if not isinstance(answer, Mapping):
        raise BadRow(f"field `{name}` must be an object with text and votes")
    if "text" in answer and not is_given(answer, "text"):
        return None
    try:
        text = trim(require_text(answer, "text"))
    except BadRow as error:
        raise BadRow(f"field `{name}`: {error}") from None
    votes, accepted = _votes(answer, name), _accepted(answer, name)
    return ScoredAnswer(text=text, votes=votes, accepted=accepted)


def _votes(answer: Fields, name: str) -> int:
    if not is_given(answer, "votes") and is_given(answer, "pm_score"):
        return _votes_of_score(_whole(answer["pm_score"], f"{name}.pm_score"), f"{name}.pm_score")
    if not is_given(answer, "votes"):
        raise BadRow(f"field `{name}`: field `votes` is {'null' if 'votes' in answer else 'missing'}")
    return _whole(answer["votes"], f"{name}.votes")


def _whole(value: Any, name: str) -> int:
    """A whole number; 3.0 is one, as columns with gaps hold."""
    number = number_of(value, name)
    if number != int(number):
        raise BadRow(f"field `{name}` must be a whole number")
    return int(number)


def _votes_of_score(score: int, name: str) -> int:
    """The votes that give this score (``algorithms.preference_model.answer_score``), acceptance included."""
    if not -1 <= score <= MAX_SCORE:
        raise BadRow(f"field `{name}` must be between -1 and {MAX_SCORE}")
    return 2**score - 1 if score >= 0 else -1


def _accepted(answer: Fields, name: str) -> bool:
    """False beside a ``pm_score``, which counts acceptance already."""
    value = answer.get("accepted") if is_given(answer, "accepted") else False
    accepted = _TRUTHS.get(str(value).strip().lower())
    if accepted is None:
        raise BadRow(f"field `{name}.accepted` must be true or false")
    return accepted


_TRUTHS = {"true": True, "false": False, "1": True, "0": False}  #: as JSON, Python and spreadsheets spell them
