"""A reward straight from the feedback model, without a preference model: the expected rating of an answer.

Source: Lee et al. (RLAIF, arXiv 2309.00267), "direct RLAIF": the model rates from 1 to 10; s = sum of i * P(i) over the
ten ratings' probabilities, rescaled to [-1, 1].

Departures from the paper:
1. The standard that it rates by is a principle of the constitution, drawn for each prompt.
2. Where "10" begins with the token of "1", one more look after that token separates their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.config.schema import Labelling
from rlaif.constitution.principles import Constitution, draw_principle
from rlaif.errors import ModelError, RequestError
from rlaif.ids import prompt_id_of
from rlaif.interfaces import ChoiceScorer
from rlaif.prompting.dialogues import DialogueFormat, dialogue
from rlaif.prompting.questions import RatingQuestion
from rlaif.prompting.thoughts import without_thoughts
from rlaif.prompting.tokenization import Pieces, append_text, common_prefix, encode, fit_turns_aside, prompt_ids
from rlaif.records import RolloutSample, ScoredSample, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RATINGS = tuple(range(1, 11))


def reward_of(probs: Sequence[float]) -> float:
    """The mean rating of ``probs`` [10], which need not sum to 1, on the scale from -1 to 1."""
    mean = sum(rating * prob for rating, prob in zip(RATINGS, probs, strict=True)) / sum(probs)
    return (mean - 5.5) / 4.5


@dataclass(frozen=True, kw_only=True)
class RateSample:
    """The task: RolloutSample in, ScoredSample out, with the expected rating as its score."""

    seed: int
    constitution: Constitution
    settings: Labelling
    dialogue_format: DialogueFormat

    async def __call__(self, engine: ChoiceScorer, sample: RolloutSample) -> ScoredSample:
        answer = without_thoughts(sample.completion.text)
        if answer is None:
            raise RequestError("the answer is an unfinished thought")
        probs = await rating_probs(engine, await self._question(engine, sample, answer))
        if sum(probs) < self.settings.min_letter_mass:
            raise RequestError(f"the ratings hold {sum(probs):.3f} of the probability")
        return ScoredSample.of(sample, score=reward_of(probs), preference_model_version=0)

    async def _question(self, engine: ChoiceScorer, sample: RolloutSample, answer: str) -> Pieces:
        form = dialogue(self.dialogue_format, engine.tokenizer)
        principles, key = self.constitution.for_comparison, prompt_id_of(sample.id)
        principle = draw_principle(principles, self.settings.draw, self.seed, key)
        standard = principle.comparison
        assert standard is not None

        def render(turns: Sequence[Turn]) -> Pieces:
            return form.choice(RatingQuestion(turns=turns, comparison=standard, answer=answer))

        room = engine.max_length - 8
        turns, _, _ = await fit_turns_aside(sample.prompt, render, engine.tokenizer, room, answer)
        return render(turns)


async def rating_probs(engine: ChoiceScorer, question: Pieces) -> tuple[float, ...]:
    """P(1) .. P(10) as the next rating."""
    ids, ends = rating_ids(engine.tokenizer, question)
    firsts = tuple(dict.fromkeys(end[0] for end in ends))
    logprobs = dict(zip(firsts, await engine.choice_logprobs(ids, firsts), strict=True))
    probs = [math.exp(logprobs[end[0]]) for end in ends]
    if len(firsts) < len(ends):  # "10" begins with the token of "1"
        (zero_after_one,) = await engine.choice_logprobs((*ids, ends[-1][0]), (ends[-1][1],))
        probs[-1] *= math.exp(zero_after_one)
        probs[0] -= probs[-1]
    return tuple(probs)


def rating_ids(tokenizer: PreTrainedTokenizerFast, question: Pieces) -> tuple[list[int], list[list[int]]]:
    """Prompt ids, and the token ids that each rating adds to them.

    Raises ModelError for a tokenizer that gives the ratings no distinct next tokens.
    """
    endings = [encode(tokenizer, append_text(question[-1], f" {rating}")) for rating in RATINGS]
    num_shared = len(common_prefix(endings))
    ends = [ids[num_shared:] for ids in endings]
    one, *others, ten = (end[0] if end else None for end in ends)
    distinct = len({one, *others}) == len(RATINGS) - 1 and None not in (one, *others, ten) and ten not in others
    if not distinct or (ten == one and len(ends[-1]) < 2):
        raise ModelError("the tokenizer gives the ratings 1 to 10 no distinct next tokens")
    return prompt_ids(tokenizer, Pieces(question[:-1])) + endings[0][:num_shared], ends
