"""The preference model's conventions: what is scored, where, and what pretraining scores mean.

A preference score is a scalar head's output at the last token of the templated dialogue, which is always the EOS, the
same in training, evaluation and reinforcement. The saved model's padding id differs from its EOS, because stock
classification models read the last token that is not padding and would otherwise look before the EOS.

Preference-model pretraining (PMP) learns from public questions whose answers carry votes.
Sources: arXiv 2112.00861, appendix C.1 (scores of voted answers); arXiv 2204.05862, section 4 (the head and loss).

Departures from the papers:
1. Answers are paired with the next differing score and not in all combinations: a question with many answers would
   otherwise outweigh the rest.
2. No context-distillation token is appended; the dialogue's own EOS is where the score is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rlaif.records import ScoredAnswer, ScoredAnswers


def answer_score(votes: int, accepted: bool) -> int:
    """round(log2(1 + max(votes, 0))), plus one when accepted, minus one when votes are negative."""
    return round(math.log2(1 + max(votes, 0))) + int(accepted) - int(votes < 0)


def question_answer(question: str, answer: str) -> str:
    """The text of a pretraining example, without the EOS."""
    return f"Question: {question}\n\nAnswer: {answer}"


def pretraining_pairs(scored: ScoredAnswers) -> Iterator[tuple[str, str]]:
    """(better, worse) texts of one question: answers ranked by score, each with the best one that scores lower.

    Nothing for fewer than two answers or equal scores.
    """
    ranked = sorted(scored.answers, key=_score, reverse=True)
    for index, better in enumerate(ranked):
        worse = _next_lower(ranked[index + 1 :], _score(better))
        if worse is not None:
            yield question_answer(scored.question, better.text), question_answer(scored.question, worse.text)


def _score(answer: ScoredAnswer) -> int:
    return answer_score(answer.votes, answer.accepted)


def _next_lower(ranked: Sequence[ScoredAnswer], score: int) -> ScoredAnswer | None:
    return next((answer for answer in ranked if _score(answer) < score), None)
