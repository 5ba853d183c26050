"""How far a policy drifts while it learns to please its preference model, and the guard against over-refusal.

A policy can buy harmlessness with refusals, length, or one phrase that always scores. So each batch is compared with
the first one, which the SL-CAI policy answered.

The guard (``reinforcement.helpfulness_penalty``): the *level* is a moving mean of the preference scores of answers to
helpful prompts, the *shortfall* by how much more than a margin it is below the first batch's mean. Advantages of
helpful prompts are multiplied by 1 + penalty * shortfall: a proportional controller of the Lagrange multiplier of
"maximise both scores, with helpfulness at least SL-CAI's".

Departures from the papers: the Constitutional AI paper names the risk and has no such term. In Safe RLHF (arXiv
2310.12773), section 3.3, the multiplier is learned by gradient steps; here it follows the shortfall, so it has no state
of its own and is 0 as soon as the level is back. It weighs advantages and not rewards: a number taken off all rewards,
or a factor on those of a group, would vanish in whitening and in group baselines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.records import ScoredSample

SMOOTHING = 0.2  #: weight of the newest batch in the moving mean: it covers about five batches
PHRASE_TOKENS = 4
NUM_PHRASES = 10


@dataclass(frozen=True, kw_only=True)
class GuardState:
    """The run's first batch, and how helpful the policy has been lately; kept in checkpoints. None: no helpful prompt
    has been seen yet."""

    first_length: float  #: mean tokens of an answer
    first_helpful: float | None  #: mean preference score of answers to helpful prompts
    helpful: float | None  #: the level: its moving mean

    def shortfall(self, margin: float) -> float:
        """Preference-score units that helpful answers are below the first batch's, beyond ``margin``; or 0."""
        if self.first_helpful is None or self.helpful is None:
            return 0.0
        return max(0.0, self.first_helpful - margin - self.helpful)


def update_guard(before: GuardState | None, samples: Sequence[ScoredSample]) -> GuardState:
    """The state after one more batch."""
    scores = [sample.score for sample in samples if sample.axis == "helpful"]
    mean = float(np.mean(scores)) if scores else None
    if before is None:
        length = float(np.mean([len(sample.response_ids) for sample in samples]))
        return GuardState(first_length=length, first_helpful=mean, helpful=mean)
    return GuardState(
        first_length=before.first_length,
        first_helpful=mean if before.first_helpful is None else before.first_helpful,
        helpful=_move_level(before.helpful, mean),
    )


def _move_level(level: float | None, mean: float | None) -> float | None:
    if level is None or mean is None:
        return mean if level is None else level
    return level + SMOOTHING * (mean - level)


def boilerplate_rate(answers: Iterable[Sequence[int]]) -> float:
    """Share of all phrases (four tokens in a row) of a batch that are one of its ten most common ones.

    Rises to 1 when every answer says the same; 0 when no answer is long enough for a phrase.
    """
    phrases = Counter(
        tuple(answer[start : start + PHRASE_TOKENS])
        for answer in answers
        for start in range(len(answer) - PHRASE_TOKENS + 1)
    )
    common = sum(count for _, count in phrases.most_common(NUM_PHRASES))
    return common / phrases.total() if phrases else 0.0
