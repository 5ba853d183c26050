"""How far people and the AI labels agree: on the pairs that people judged and, by weighting, on all labels.

Shapes: N judged pairs; K = 3 choices; ``weights`` [N], how many labels a judged pair represents; tables [K, K] have
the AI's choice as row and the people's as column.
Sources: Cohen (Educational and Psychological Measurement 20, 1960) for kappa; Fleiss, Cohen and Everitt (Psychological
Bulletin 72, 1969) for its large-sample standard error; Kish (Survey Sampling, 1965) for the effective number of
unequally weighted rows.

Departures from the sources: 1. weighted intervals use Kish's number as the sample size and so ignore the precision that
stratifying gains: if anything, they are too wide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlaif.statistics.calibration import Bin, both_ways, expected_calibration_error, reliability
from rlaif.statistics.estimates import Estimate
from rlaif.statistics.intervals import Z_95, wilson
from rlaif.tasks.labelling import TIE_WIDTH

Choice = Literal["answer_1", "answer_2", "tie"]
CHOICES: tuple[Choice, ...] = ("answer_1", "answer_2", "tie")
OUTCOMES: Mapping[Choice, float] = {"answer_1": 1.0, "answer_2": 0.0, "tie": 0.5}

#: For comparison with any agreement.
AMONG_PEOPLE = "people agree with each other on 70-80% of hard pairs"


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPair:
    """A label and a person's verdict on its pair. ``prob`` is the label's P(answer_1 better)."""

    label_id: str
    stratum: str
    prob: float
    verdict: Choice
    comment: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StratumAgreement:
    name: str
    num_labels: int
    num_judged: int
    agreement: Estimate | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """``judged`` is over the pairs that people judged, ``all_labels`` over the strata that they come from.

    ``coverage`` is the share of labels whose stratum has a judged pair. A kappa is None where both sides always
    made the same choice: it is undefined there. The calibration error and its bins are weighted to all labels and count
    each pair both ways, because which answer is called answer_1 is arbitrary, and a tie as half an answer_1; the count
    of a bin is of judged pairs.
    """

    num_judged: int
    coverage: float
    judged: Estimate
    all_labels: Estimate
    kappa_judged: Estimate | None
    kappa_all_labels: Estimate | None
    expected_calibration_error: float
    bins: tuple[Bin, ...]
    choices: tuple[Choice, ...]
    table: tuple[tuple[int, ...], ...]
    strata: tuple[StratumAgreement, ...]


def agreement(pairs: Sequence[JudgedPair], strata: Mapping[str, int]) -> Agreement:
    """Of at least one judged pair; ``strata`` holds the number of labels in each stratum."""
    hits, weights = np.array([agrees(pair) for pair in pairs]), weights_of(pairs, strata)
    ones = np.ones(len(pairs))
    probs = both_ways(np.array([pair.prob for pair in pairs]))
    outcomes = both_ways(np.array([OUTCOMES[pair.verdict] for pair in pairs]))
    table = choice_table(pairs, ones)
    return Agreement(
        num_judged=len(pairs),
        coverage=sum(strata[name] for name in {pair.stratum for pair in pairs}) / sum(strata.values()),
        judged=rate(hits, ones),
        all_labels=rate(hits, weights),
        kappa_judged=kappa(table, len(pairs)),
        kappa_all_labels=kappa(choice_table(pairs, weights), effective_number(weights)),
        expected_calibration_error=expected_calibration_error(probs, outcomes, weights=np.tile(weights, 2)),
        bins=reliability(probs, outcomes, weights=np.tile(weights, 2)),
        choices=CHOICES,
        table=tuple(tuple(map(int, row)) for row in table),
        strata=tuple(_stratum(name, size, pairs) for name, size in strata.items()),
    )


def _stratum(name: str, num_labels: int, pairs: Sequence[JudgedPair]) -> StratumAgreement:
    hits = np.array([agrees(pair) for pair in pairs if pair.stratum == name])
    return StratumAgreement(
        name=name,
        num_labels=num_labels,
        num_judged=len(hits),
        agreement=rate(hits, np.ones(len(hits))) if len(hits) else None,
    )


# ------------------------------------------------------------------------------------------------- one pair
def choice_of(prob: float) -> Choice:
    """What a label chose."""
    if abs(prob - 0.5) < TIE_WIDTH:
        return "tie"
    return "answer_1" if prob > 0.5 else "answer_2"


def agrees(pair: JudgedPair) -> float:
    """1 for the same choice (two ties are the same), 0.5 when only one side called it a tie, else 0."""
    chosen = choice_of(pair.prob)
    if chosen == pair.verdict:
        return 1.0
    return 0.5 if "tie" in (chosen, pair.verdict) else 0.0


# ------------------------------------------------------------------------------------------------ all pairs
def weights_of(pairs: Sequence[JudgedPair], strata: Mapping[str, int]) -> np.ndarray:
    """[N]: the number of labels in a pair's stratum over the number of its judged pairs."""
    num_judged = Counter(pair.stratum for pair in pairs)
    return np.array([strata[pair.stratum] / num_judged[pair.stratum] for pair in pairs])


def effective_number(weights: np.ndarray) -> float:
    """The number of equally weighted rows that carry as much information; N when all weights are equal."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def rate(hits: np.ndarray, weights: np.ndarray) -> Estimate:
    """Weighted mean of ``hits`` [N] in [0, 1], with Wilson's interval."""
    value, num = float((hits * weights).sum() / weights.sum()), effective_number(weights)
    low, high = wilson(value * num, num)
    return Estimate(value=value, low=low, high=high)


def choice_table(pairs: Sequence[JudgedPair], weights: np.ndarray) -> np.ndarray:
    table = np.zeros((len(CHOICES), len(CHOICES)))
    for pair, weight in zip(pairs, weights, strict=True):
        table[CHOICES.index(choice_of(pair.prob)), CHOICES.index(pair.verdict)] += weight
    return table


def kappa(table: np.ndarray, num: float) -> Estimate | None:
    """Cohen's kappa of a [K, K] table of counts or weights that is worth ``num`` rows.

    kappa = (p_o - p_e) / (1 - p_e); p_o is the share of equal choices, p_e the share expected of two
    independent judges with these margins. At perfect agreement the large-sample interval is a single point; Wilson's,
    for the rate, is not.
    """
    p = table / table.sum()
    rows, columns = p.sum(1), p.sum(0)
    observed, expected = float(np.trace(p)), float(rows @ columns)
    if math.isclose(expected, 1.0):
        return None
    value = (observed - expected) / (1 - expected)
    half = Z_95 * _kappa_error(p, value, expected) / math.sqrt(num)
    return Estimate(value=value, low=max(-1.0, value - half), high=min(1.0, value + half))


def _kappa_error(p: np.ndarray, kappa: float, expected: float) -> float:
    """Standard error of kappa times the root of the number of rows."""
    rows, columns = p.sum(1), p.sum(0)
    same, margins = np.diag(p), columns[:, None] + rows[None, :]  # margins[i, j] = p_.i + p_j.
    on_diagonal = (same * (1 - np.diag(margins) * (1 - kappa)) ** 2).sum()
    every_cell = (p * margins**2).sum()
    off_diagonal = (1 - kappa) ** 2 * (every_cell - (same * np.diag(margins) ** 2).sum())
    variance = on_diagonal + off_diagonal - (kappa - expected * (1 - kappa)) ** 2
    return math.sqrt(max(0.0, float(variance))) / (1 - expected)
