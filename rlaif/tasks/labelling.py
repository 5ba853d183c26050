"""Step 3 of the method: a feedback model says which of two answers the constitution prefers, as a soft label.

Source: Constitutional AI (arXiv 2212.08073), section 4.1; both orders, their averaging and sampled rationales: Lee et
al. (RLAIF, arXiv 2309.00267), sections 2.2 and 2.3.

Conventions: ``y1``, ``y2`` are the comparison's answers. l1 = log-odds that the letter of y1 is chosen when y1 is
in slot A; l2 = the same when y1 is in slot B (already un-swapped). p = sigmoid(l). A *vote* is (l1, l2): one
principle's two orders, and with sampled rationales one pair of them.

Departures from the papers:
1. Every pair is judged in both orders; the first paper judges one.
2. ``logit_mean`` averages log-odds instead of probabilities: an additive slot bias cancels exactly.
3. A judgement whose two letters hold too little probability, or whose log-probabilities are none (NaN, infinite), is
   invalid, and one invalid order makes the label so.
4. Identical answers are a tie of 0.5 without asking.
5. With ``conflicts: priority``, principles of the highest priority whose two orders agree decide a label alone.
6. The clamp of reasoned labels is applied after both orders and all votes are averaged, so that it is symmetric.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from rlaif.config.schema import Gate, Labelling
from rlaif.constitution.principles import PRIORITIES, Constitution, Principle, Priority, draw_principles
from rlaif.errors import RequestError
from rlaif.ids import settings_of
from rlaif.interfaces import ChoiceScorer
from rlaif.prompting.dialogues import Dialogue, DialogueFormat, dialogue
from rlaif.prompting.examples import LabelExample
from rlaif.prompting.questions import DEFAULT, LETTERS, Question, QuestionTemplate
from rlaif.prompting.thoughts import without_thoughts, written_answer
from rlaif.prompting.tokenization import Pieces, encode, fit_turns_aside, letter_ids, prompt_ids
from rlaif.records import Comparison, Judgement, Preference, Sampling, Status, Turn
from rlaif.seeds import seed_from
from rlaif.statistics.logistic import sigmoid

Aggregation = Literal["prob_mean", "logit_mean", "agree_or_tie"]

Vote = tuple[float, float]  #: (l1, l2)
NO_PRIORITIES: Mapping[str, Priority] = MappingProxyType({})

MAX_ABS_LOGIT = 20.0
TIE_WIDTH = 1e-6
#: A log-probability is between these. Below are tokens that an engine masks (-inf, or the least float32), and rounding
#: lifts certain ones a little above 0.
LOGPROB_RANGE = (-1e4, 1e-3)
REFUSAL = re.compile(r"\s*(?:I['’]m sorry|I am sorry|I apologi[sz]e|I can(?:no|['’])t|I won['’]t)", re.IGNORECASE)


# ------------------------------------------------------------------------------------------------ aggregation
def log_odds(judgement: Judgement) -> float:
    """Log-odds that answer_1 is better by one judgement: the second order is un-swapped here and nowhere else."""
    a_over_b = judgement.logprob_a - judgement.logprob_b
    return a_over_b if judgement.order == 1 else -a_over_b


def prob_by_order(judgements: Iterable[Judgement], order: Literal[1, 2]) -> float:
    """P(answer_1 better) by the judgements of one order (at least one), the mean over principles."""
    probs = [sigmoid(log_odds(judgement)) for judgement in judgements if judgement.order == order]
    return sum(probs) / len(probs)


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


def votes_of(judgements: Sequence[Judgement]) -> list[Vote]:
    """The votes in the order in which they were asked for; a principle's n-th judgement in one order is paired with its
    n-th in the other."""
    orders: dict[str, tuple[list[float], list[float]]] = {}
    for judgement in judgements:
        orders.setdefault(judgement.principle_id, ([], []))[judgement.order - 1].append(log_odds(judgement))
    return [vote for first, second in orders.values() for vote in zip(first, second, strict=True)]


def prob_of(
    judgements: Sequence[Judgement],
    how: Aggregation,
    clamp: float = 0.0,
    priorities: Mapping[str, Priority] = NO_PRIORITIES,
) -> float:
    """The label of a pair: the mean of its votes, within [clamp, 1 - clamp].

    ``priorities``: of principles, by id, where the highest priority that decides does so alone (``_deciding``).

    The swapped pair gets exactly 1 - p: only one of a pair and its mirror image is computed, on a grid of 2**-53, where
    1 - p is exact.
    """
    votes = votes_of(_deciding(judgements, priorities))
    mirrored = [(-l2, -l1) for l1, l2 in votes]
    if votes < mirrored:
        return 1 - _mean(mirrored, how, clamp)
    return _mean(votes, how, clamp)


def _deciding(judgements: Sequence[Judgement], priorities: Mapping[str, Priority]) -> Sequence[Judgement]:
    """The judgements by principles of the highest priority whose two orders prefer the same answer; all, if none does.

    Of a pair and its mirror image, the same are chosen: tanh is odd, and the sums are exact.
    """
    for priority in PRIORITIES:
        of_it = [judgement for judgement in judgements if priorities.get(judgement.principle_id) == priority]
        leads = [math.fsum(math.tanh(log_odds(j) / 2) for j in of_it if j.order == order) for order in (1, 2)]
        if min(leads) > 0 or max(leads) < 0:
            return of_it
    return judgements


def _mean(votes: Sequence[Vote], how: Aggregation, clamp: float) -> float:
    prob = sum(aggregate(l1, l2, how) for l1, l2 in votes) / len(votes)
    if abs(prob - 0.5) < TIE_WIDTH:
        return 0.5
    return round(min(max(prob, clamp), 1 - clamp) * 2**53) / 2**53


def clamp_of(settings: Labelling) -> float:
    """Plain labels are not clamped."""
    return settings.reasoning.clamp if settings.reasoning.mode != "off" else 0.0


def verdict(
    judgements: Sequence[Judgement], settings: Labelling, priorities: Mapping[str, Priority] = NO_PRIORITIES
) -> tuple[Status, float | None, str | None]:
    """(status, P(answer_1 better), error) of a pair's judgements.

    ``priorities``: of principles, by id; used with ``conflicts: priority``.
    """
    if not judgements:  # identical answers
        return Status.TIE, 0.5, None
    for judgement in judgements:
        where = f"principle {judgement.principle_id}, order {judgement.order}"
        if not (_is_logprob(judgement.logprob_a) and _is_logprob(judgement.logprob_b)):
            found = f"{judgement.logprob_a} and {judgement.logprob_b}"
            return Status.INVALID, None, f"{where}: the letters have {found} in place of log-probabilities"
        mass = math.exp(judgement.logprob_a) + math.exp(judgement.logprob_b)
        if mass < settings.min_letter_mass:
            refused = judgement.rationale is not None and REFUSAL.match(judgement.rationale)
            why = "the labeller refused to judge" if refused else f"letters hold {mass:.3f} of the probability"
            return (
                Status.REFUSED if refused else Status.INVALID,
                None,
                f"{where}: {why}",
            )
    by_priority = priorities if settings.conflicts == "priority" else NO_PRIORITIES
    prob = prob_of(judgements, settings.aggregation, clamp_of(settings), by_priority)
    return (Status.TIE if prob == 0.5 else Status.OK), prob, None


def _is_logprob(value: float | None) -> bool:
    """Whether a judge's number is one. None is what earlier releases stored for NaN and infinity."""
    least, greatest = LOGPROB_RANGE
    return value is not None and least <= value <= greatest


# ------------------------------------------------------------------------------------------------------- task
@dataclass(frozen=True, kw_only=True)
class Label:
    """The task: Comparison in, Preference out."""

    seed: int
    constitution: Constitution
    settings: Labelling
    dialogue_format: DialogueFormat
    template: QuestionTemplate = DEFAULT
    examples: tuple[LabelExample, ...] = ()

    def inputs(self, pair: Comparison) -> tuple[object, ...]:
        """Of the constitution, only the principles that this pair is judged by; the gate changes no label."""
        drawn = principles_for(self.constitution, self.settings, self.seed, pair)
        decides = self.settings.conflicts == "priority"
        used = tuple((p.id, p.comparison, p.priority) if decides else (p.id, p.comparison) for p in drawn)
        judged_by = () if pair.answer_1 == pair.answer_2 else used
        settings = self.settings.model_copy(update={"gate": Gate()})
        return {**settings_of(self, without="constitution"), "settings": settings}, judged_by

    async def __call__(self, engine: ChoiceScorer, pair: Comparison) -> Preference:
        started = time.monotonic()
        status: Status
        prob: float | None = None
        error: str | None
        judgements: tuple[Judgement, ...] = ()
        truncated = pair.truncated
        try:
            if error := _flaw(pair):
                status = Status.INVALID
            else:
                inquiry = _Inquiry(self, engine, pair)
                async with asyncio.timeout(self.settings.timeout_s):
                    judgements = await inquiry.judgements()
                status, prob, error = verdict(judgements, self.settings, self.constitution.priorities)
                truncated |= inquiry.truncated
        except RequestError as failure:  # e.g. answers too long for the labeller: kept, named, never a number
            status, error = Status.ERROR, str(failure)
        except TimeoutError:
            status, error = Status.TIMEOUT, f"no judgement within {self.settings.timeout_s:g} s"
        return Preference.of(
            pair,
            status=status,
            error=error,
            seconds=time.monotonic() - started,
            seed=self.seed,
            model_version=engine.model_version,
            prob=prob,
            aggregation=self.settings.aggregation,
            judgements=judgements,
            constitution_hash=self.constitution.hash,
            template_version=self.template.version,
            truncated=truncated,
        )


def _flaw(pair: Comparison) -> str | None:
    """Why a pair cannot be judged, or None."""
    for name, answer in (("answer_1", pair.answer_1), ("answer_2", pair.answer_2)):
        if (written := written_answer(answer)) is None:
            return f"{name} is an unfinished thought"
        if not written.strip():
            return f"{name} is empty"
    return None


def principles_for(
    constitution: Constitution, settings: Labelling, seed: int, pair: Comparison | Preference
) -> tuple[Principle, ...]:
    """The principles that a pair is judged by: a draw for the prompt and the unordered pair."""
    unordered = sorted((pair.answer_1, pair.answer_2))
    return draw_principles(constitution.for_comparison, settings.principles, settings.draw, seed, pair.id, *unordered)


class _Inquiry:
    """One pair's questions to one engine: every principle, both orders, every rationale, all at once."""

    def __init__(self, task: Label, engine: ChoiceScorer, pair: Comparison) -> None:
        self._task, self._engine, self._pair = task, engine, pair
        self._settings = task.settings.reasoning
        self._form: Dialogue = dialogue(task.dialogue_format, engine.tokenizer)
        self._turns = pair.prompt
        self._answers = written_answer(pair.answer_1), written_answer(pair.answer_2)
        self.truncated = False

    async def judgements(self) -> tuple[Judgement, ...]:
        pair = self._pair
        if self._answers[0] == self._answers[1]:
            return ()
        principles = principles_for(self._task.constitution, self._task.settings, self._task.seed, pair)
        await self._fit(principles)
        rationales = self._settings.rationales if self._settings.mode == "sampled" else 1
        asked = [self._ask(p, order, n) for p in principles for n in range(rationales) for order in (1, 2)]
        return tuple(await asyncio.gather(*asked))

    async def _fit(self, principles: Sequence[Principle]) -> None:
        """Shorten the conversation once, for the longest principle: all questions must share it."""
        tokenizer, think = self._engine.tokenizer, self._settings.mode != "off"
        longest = max(principles, key=lambda principle: len(encode(tokenizer, principle.comparison or "")))
        room = self._engine.max_length - (self._settings.max_tokens + 32 if think else 8)

        def render(turns: Sequence[Turn]) -> str | Pieces:
            question = replace(self._question(longest, 1), turns=turns)
            return self._form.reasoning(question) if think else self._form.choice(question)

        answers = "".join(answer or "" for answer in self._answers)
        self._turns, _, self.truncated = await fit_turns_aside(self._turns, render, tokenizer, room, answers)

    def _question(self, principle: Principle, order: int) -> Question:
        assert principle.comparison is not None
        first, second = self._answers
        assert first is not None and second is not None  # which ``_flaw`` has found otherwise
        return Question(
            template=self._task.template,
            turns=self._turns,
            comparison=principle.comparison,
            slot_a=first if order == 1 else second,
            slot_b=second if order == 1 else first,
            examples=self._task.examples,
        )

    async def _ask(self, principle: Principle, order: Literal[1, 2], number: int) -> Judgement:
        question = self._question(principle, order)
        rationale = None
        if self._settings.mode != "off":
            rationale = await self._reason(question, principle, number)
        asked = self._form.choice(question, rationale)
        ids, letters = letter_ids(self._engine.tokenizer, asked, LETTERS)
        logprob_a, logprob_b = await self._engine.choice_logprobs(ids, letters)
        return Judgement(
            principle_id=principle.id, order=order, logprob_a=logprob_a, logprob_b=logprob_b, rationale=rationale
        )

    async def _reason(self, question: Question, principle: Principle, number: int) -> str:
        """The labeller's reasoning; seeded by what is in the slots, so that a swapped pair gets the same."""
        sampling = Sampling(
            max_tokens=self._settings.max_tokens,
            temperature=self._settings.temperature if self._settings.mode == "sampled" else 0.0,
            seed=seed_from(self._task.seed, self._pair.id, principle.id, question.slot_a, question.slot_b, number),
            stop=(question.template.closing, "\n\nHuman:"),
        )
        ids = prompt_ids(self._engine.tokenizer, self._form.reasoning(question))
        rationale = without_thoughts((await self._engine.generate(ids, sampling)).text)
        if rationale is None:
            raise RequestError(f"principle {principle.id}: the labeller's rationale is an unfinished thought")
        return rationale
