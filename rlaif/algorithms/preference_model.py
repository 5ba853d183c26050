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

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.records import ScoredAnswer, ScoredAnswers
from rlaif.statistics.calibration import (
    Bin,
    both_ways,
    brier_score,
    cross_entropy,
    expected_calibration_error,
    fitted_temperature,
    reliability,
)
from rlaif.statistics.logistic import sigmoids


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
    by_score = [list(answers) for _, answers in itertools.groupby(ranked, key=_score)]
    for equals, (worse, *_) in itertools.pairwise(by_score):
        for better in equals:
            yield question_answer(scored.question, better.text), question_answer(scored.question, worse.text)


def _score(answer: ScoredAnswer) -> int:
    return answer_score(answer.votes, answer.accepted)


@dataclass(frozen=True, kw_only=True)
class ScoredPair:
    """A labelled pair with the scores that a preference model gave: for its report."""

    axis: str
    prob: float  #: the label, P(1 better)
    score_1: float
    score_2: float
    length_1: int  #: in tokens
    length_2: int


def pair_report(pairs: Sequence[ScoredPair]) -> dict[str, float]:
    """Accuracy (also per axis), cross-entropy, calibration (error, Brier score, temperature), correlation of
    score and length differences.

    Accuracies leave out ties (prob 0.5); a figure without data (an axis of ties only, equal scores) is left out.
    """
    probs, differences = _arrays(pairs)
    predicted = sigmoids(differences)
    report = {
        "loss": cross_entropy(differences, probs),
        "ece": expected_calibration_error(both_ways(predicted), both_ways(probs)),
        "brier": brier_score(predicted, probs),
        **_accuracies(pairs),
    }
    if differences.any():
        report["temperature"] = fitted_temperature(differences, probs)
    return report | _length_correlation(pairs)


def _accuracies(pairs: Sequence[ScoredPair]) -> dict[str, float]:
    """Share of pairs that scores and labels order alike: of all, and of each axis. Equal scores are half right."""
    probs, differences = _arrays(pairs)
    decided = probs != 0.5
    right = (1 + np.sign(differences) * np.sign(probs - 0.5)) / 2
    axes = np.array([pair.axis for pair in pairs])
    chosen = {"accuracy": decided} | {f"accuracy_{axis}": decided & (axes == axis) for axis in dict.fromkeys(axes)}
    return {name: float(right[rows].mean()) for name, rows in chosen.items() if rows.any()}


def pair_reliability(pairs: Sequence[ScoredPair]) -> tuple[Bin, ...]:
    """The probabilities that scores imply against those that labels state, each pair counted both ways."""
    probs, differences = _arrays(pairs)
    return reliability(both_ways(sigmoids(differences)), both_ways(probs))


def _arrays(pairs: Sequence[ScoredPair]) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and score differences [N]."""
    differences = np.array([pair.score_1 - pair.score_2 for pair in pairs])
    return np.array([pair.prob for pair in pairs]), differences


def _length_correlation(pairs: Sequence[ScoredPair]) -> dict[str, float]:
    """Between differences of score and of length within pairs, each pair counted both ways.

    The prompt, which both dialogues share, cancels: neither its length nor how high its answers score plays a part.
    """
    _, scores = _arrays(pairs)
    lengths = np.array([pair.length_1 - pair.length_2 for pair in pairs], dtype=float)
    spread = math.sqrt(float(scores @ scores) * float(lengths @ lengths))
    return {"length_correlation": float(scores @ lengths) / spread} if spread else {}
