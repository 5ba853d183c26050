"""How good a judge is of which only verdicts are known: which answer it chose in each order, without probabilities.

Such are the verdicts of models behind an interface that gives no log-probabilities, and those of published judges. The
measures are those of ``rlaif.labels.quality``, as far as they need no probabilities.

Conventions: with ``first`` answer_1 was in slot A, with ``second`` answer_2 was; both say which answer was chosen, not
which slot. Accuracies are over all pairs that have a better answer: one without a verdict is not right. Flips are over
the pairs that have both.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

from rlaif.labels.quality import VoteQuality
from rlaif.statistics.estimates import Cases, CountedEstimate
from rlaif.tasks.labelling import MAX_ABS_LOGIT, Vote, aggregate

Number = Literal[1, 2]  #: of an answer


@dataclass(frozen=True, kw_only=True)
class OrderVerdicts:
    """A judge's choices in both orders; None where it made none that could be read."""

    prompt: Hashable  #: verdicts of equal prompts are not independent
    first: Number | None
    second: Number | None
    better: Number | None  #: by a gold label; None without one


def measure_verdicts(pairs: Iterable[OrderVerdicts]) -> dict[str, CountedEstimate]:
    """The measures by name, with their 95% intervals; those without cases are left out.

    ``gold_accuracy`` is that of ``agree_or_tie``: a pair whose orders disagree is a tie, which is half right.
    """
    votes = VoteQuality()
    names = ("gold_accuracy_first", "gold_accuracy_second", "gold_accuracy", "tie_rate", "invalid_rate")
    cases = {name: Cases() for name in names}
    for pair in pairs:
        vote = _vote(pair)
        prob = None if vote is None else aggregate(*vote, "agree_or_tie")
        cases["invalid_rate"].add(vote is None, pair.prompt)
        cases["tie_rate"].add(prob == 0.5, pair.prompt)
        if vote is not None and prob is not None:
            votes.add(vote, prob, None, pair.prompt)
        if pair.better is not None:
            cases["gold_accuracy_first"].add(pair.first == pair.better, pair.prompt)
            cases["gold_accuracy_second"].add(pair.second == pair.better, pair.prompt)
            right = 0.0 if prob is None else 0.5 if prob == 0.5 else float((prob > 0.5) == (pair.better == 1))
            cases["gold_accuracy"].add(right, pair.prompt)
    flips = {name: m for name, m in votes.measures().items() if name in ("flip_rate", "flips_to_slot_a")}
    return flips | {name: one.rate() for name, one in cases.items() if one.num}


def _vote(pair: OrderVerdicts) -> Vote | None:
    """A verdict as log-odds that leave no doubt."""
    if pair.first is None or pair.second is None:
        return None
    first, second = (MAX_ABS_LOGIT if chosen == 1 else -MAX_ABS_LOGIT for chosen in (pair.first, pair.second))
    return first, second
