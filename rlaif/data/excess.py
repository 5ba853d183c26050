"""What one row may hold, once it is read (``RowLimits``): turns of a conversation, answers to a question."""

from __future__ import annotations

from rlaif.config.source import RowLimits
from rlaif.data.rows import BadRow
from rlaif.records import Comparison, PreferencePair, Prompt, ScoredAnswers, SuiteAnswer

SourceRecord = Prompt | PreferencePair | Comparison | ScoredAnswers  #: what ``data.readers`` make of rows
LimitedRecord = SourceRecord | SuiteAnswer


def refuse_excess(record: LimitedRecord, limits: RowLimits) -> None:
    """Raises BadRow when ``record`` has more turns or answers than ``limits`` allow."""
    if isinstance(record, ScoredAnswers):
        _refuse(len(record.answers), limits.max_answers, "the question", "answers")
    else:
        turns = record.turns if isinstance(record, Prompt) else record.prompt
        _refuse(len(turns), limits.max_turns, "the conversation", "turns")


def _refuse(num: int, most: int, what: str, parts: str) -> None:
    if num > most:
        raise BadRow(f"{what} has {num:,} {parts}, more than {most:,} (data.limits.max_{parts})")
