"""A reward straight from the feedback model, without a preference model: the expected rating of an answer.

Source: Lee et al. (RLAIF, arXiv 2309.00267), "direct RLAIF": the model rates from 1 to 10; s = sum of i * P(i) over the
ten ratings' probabilities, rescaled to [-1, 1].

Departure from the paper: the standard that it rates by is a principle of the constitution, drawn for each prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.config.schema import Labelling
from rlaif.constitution.principles import Constitution, draw_principle
from rlaif.errors import RequestError
from rlaif.ids import prompt_id_of
from rlaif.interfaces import ChoiceScorer
from rlaif.prompting.dialogues import DialogueFormat, dialogue
from rlaif.prompting.questions import AnswerQuestion
from rlaif.prompting.thoughts import without_thoughts
from rlaif.prompting.tokenization import Pieces, fit_turns_aside
from rlaif.records import RolloutSample, ScoredSample, Turn
from rlaif.tasks.ratings import rating_probs

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
        probs = await rating_probs(engine, await self._question(engine, sample, answer), RATINGS)
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
            return form.choice(AnswerQuestion(turns=turns, comparison=standard, answer=answer))

        room = engine.max_length - 8
        turns, _, _ = await fit_turns_aside(sample.prompt, render, engine.tokenizer, room, answer)
        return render(turns)
