"""Step 3 of the method: a feedback model says which of two answers the constitution prefers, as a soft label.

Source: Constitutional AI (arXiv 2212.08073), section 4.1; both orders and their averaging: Lee et al. (RLAIF, arXiv
2309.00267), section 2.2.

Conventions: ``y1``, ``y2`` are the comparison's answers. l1 = log-odds that the letter of y1 is chosen when y1 stands
in slot A; l2 = the same when y1 stands in slot B (already un-swapped). p = sigmoid(l).

Departures from the papers:
1. Every pair is judged in both orders; the first paper judges one.
2. ``logit_mean`` averages log-odds instead of probabilities: an additive slot bias cancels exactly.
3. A judgement whose two letters hold too little probability is invalid, and one invalid order makes the label so.
4. Identical answers are a tie of 0.5 without asking.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlaif import config
from rlaif.constitution import Constitution, Principle, draw_principle
from rlaif.data.tokenization import fit_turns, letter_ids
from rlaif.errors import RequestError
from rlaif.interfaces import ChoiceScorer
from rlaif.records import Comparison, Judgement, Preference, Status, Turn
from rlaif.templates import LETTERS, TEMPLATE_VERSION, DialogueFormat, dialogue

Aggregation = Literal["prob_mean", "logit_mean", "agree_or_tie"]

MAX_ABS_LOGIT = 20.0
TIE_WIDTH = 1e-6


# ------------------------------------------------------------------------------------------------ aggregation
def log_odds(judgement: Judgement) -> float:
    """Log-odds that answer_1 is better by one judgement: the second order is un-swapped here and nowhere else."""
    a_over_b = judgement.logprob_a - judgement.logprob_b
    return a_over_b if judgement.order == 1 else -a_over_b


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def aggregate(l1: float, l2: float, how: Aggregation) -> float:
    """P(answer_1 better) from the un-swapped log-odds of both orders."""
    p1, p2 = sigmoid(l1), sigmoid(l2)
    if how == "logit_mean":
        return sigmoid((_capped(l1) + _capped(l2)) / 2)
    if how == "agree_or_tie" and l1 * l2 <= 0:
        return 0.5
    return (p1 + p2) / 2


def _capped(logit: float) -> float:
    return max(-MAX_ABS_LOGIT, min(MAX_ABS_LOGIT, logit))


def prob_of(judgements: Sequence[Judgement], how: Aggregation) -> float:
    """The label of an ensemble: the mean over its principles; each principle has both its orders."""
    by_principle: dict[str, dict[int, float]] = {}
    for judgement in judgements:
        by_principle.setdefault(judgement.principle_id, {})[judgement.order] = log_odds(judgement)
    probs = [aggregate(orders[1], orders[2], how) for orders in by_principle.values()]
    return sum(probs) / len(probs)


def verdict(judgements: Sequence[Judgement], settings: config.Labelling) -> tuple[Status, float | None, str | None]:
    """(status, probability, error) of a pair's judgements."""
    if not judgements:  # identical answers
        return Status.TIE, 0.5, None
    for judgement in judgements:
        mass = math.exp(judgement.logprob_a) + math.exp(judgement.logprob_b)
        if mass < settings.min_letter_mass:
            return (
                Status.INVALID,
                None,
                f"order {judgement.order}: letters hold {mass:.3f} of the probability",
            )
    prob = prob_of(judgements, settings.aggregation)
    return (Status.TIE if abs(prob - 0.5) < TIE_WIDTH else Status.OK), prob, None


# ------------------------------------------------------------------------------------------------------- task
@dataclass(frozen=True, kw_only=True)
class Label:
    """The task: Comparison in, Preference out."""

    seed: int
    constitution: Constitution
    settings: config.Labelling
    dialogue_format: DialogueFormat

    async def __call__(self, engine: ChoiceScorer, pair: Comparison) -> Preference:
        started = time.monotonic()
        judgements: tuple[Judgement, ...] = ()
        truncated = pair.truncated
        try:
            judgements, shortened = await self._judge(engine, pair)
            status, prob, error = verdict(judgements, self.settings)
            truncated |= shortened
        except RequestError as failure:  # e.g. answers too long for the labeller: kept, named, never a number
            status, prob, error = Status.ERROR, None, str(failure)
        return Preference(
            id=pair.id,
            source_file=pair.source_file,
            source_row=pair.source_row,
            status=status,
            error=error,
            seconds=time.monotonic() - started,
            seed=self.seed,
            model_version=engine.model_version,
            axis=pair.axis,
            prompt=pair.prompt,
            prompt_ids=pair.prompt_ids,
            answer_1=pair.answer_1,
            answer_2=pair.answer_2,
            token_ids_1=pair.token_ids_1,
            token_ids_2=pair.token_ids_2,
            policy_version=pair.policy_version,
            prob=prob,
            aggregation=self.settings.aggregation,
            judgements=judgements,
            constitution_hash=self.constitution.hash,
            template_version=TEMPLATE_VERSION,
            truncated=truncated,
        )

    async def _judge(self, engine: ChoiceScorer, pair: Comparison) -> tuple[tuple[Judgement, ...], bool]:
        if pair.answer_1 == pair.answer_2:
            return (), False
        if not pair.answer_1 or not pair.answer_2:
            raise RequestError("an answer is empty")
        principle = self._principle(pair)
        # Both orders must see the same conversation, so it is shortened once, with a little room for the other order.
        turns, shortened = _fitted(engine, self.dialogue_format, pair, principle)
        judgements = await asyncio.gather(
            self._ask(engine, turns, pair, principle, 1), self._ask(engine, turns, pair, principle, 2)
        )
        return tuple(judgements), shortened

    def _principle(self, pair: Comparison) -> Principle:
        unordered = sorted((pair.answer_1, pair.answer_2))
        return draw_principle(self.constitution.for_comparison, self.settings.draw, self.seed, pair.id, *unordered)

    async def _ask(
        self,
        engine: ChoiceScorer,
        turns: Sequence[Turn],
        pair: Comparison,
        principle: Principle,
        order: Literal[1, 2],
    ) -> Judgement:
        slots = (pair.answer_1, pair.answer_2) if order == 1 else (pair.answer_2, pair.answer_1)
        question = dialogue(self.dialogue_format, engine.tokenizer).choice(turns, principle, *slots)
        prompt_ids, letters = letter_ids(engine.tokenizer, question, LETTERS)
        logprob_a, logprob_b = await engine.choice_logprobs(prompt_ids, letters)
        return Judgement(principle_id=principle.id, order=order, logprob_a=logprob_a, logprob_b=logprob_b)


def _fitted(
    engine: ChoiceScorer, format: DialogueFormat, pair: Comparison, principle: Principle
) -> tuple[Sequence[Turn], bool]:
    form = dialogue(format, engine.tokenizer)
    turns, _, shortened = fit_turns(
        pair.prompt,
        lambda turns: form.choice(turns, principle, pair.answer_1, pair.answer_2),
        engine.tokenizer,
        engine.max_length - 8,
    )
    return turns, shortened
