"""Tasks that draw answers from a model: for SFT, for comparisons, for evaluation and for reinforcement.

Each task is a frozen object that a pool ships to an engine; calling it with a row runs that row's whole conversation
there. Seeds are hashes of what is sampled, never of when, so a resubmitted row draws the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlaif.config.schema import SamplingSettings
from rlaif.ids import batch_of, sample_id, settings_of
from rlaif.interfaces import SequenceScorer, TextGenerator
from rlaif.prompting.dialogues import Dialogue, DialogueFormat, dialogue
from rlaif.prompting.thoughts import without_thoughts
from rlaif.prompting.tokenization import Fitted, encode, fit_turns_aside
from rlaif.records import (
    Answer,
    AnswerScore,
    Comparison,
    Completion,
    Prompt,
    Rollout,
    RolloutSample,
    RolloutScore,
    Sampling,
    ScoredSample,
    Status,
    SuiteAnswer,
    Turn,
)
from rlaif.seeds import seed_from

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNFINISHED = "unfinished thought"  #: why an answer that never came cannot be used


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One of several samples to take for a prompt; ``id`` is unique among rows of its kind."""

    id: str
    prompt: Prompt
    seed: int

    @property
    def source_file(self) -> str:
        return self.prompt.source_file

    @property
    def source_row(self) -> int:
        return self.prompt.source_row


def draws(prompt: Prompt, num: int, *seed_key: object) -> list[Draw]:
    """``num`` draws of one prompt, with ids ``PROMPT#0``..."""
    return [
        Draw(id=sample_id(prompt.id, i), prompt=prompt, seed=seed_from(*seed_key, prompt.id, i)) for i in range(num)
    ]


def request(seed: int, sampling: SamplingSettings, stop: tuple[str, ...] = ()) -> Sampling:
    return Sampling(max_tokens=sampling.max_tokens, temperature=sampling.temperature, seed=seed, stop=stop)


async def _fitted(engine: TextGenerator, turns: Sequence[Turn], form: Dialogue, sampling: SamplingSettings) -> Fitted:
    """As ``fit_turns``, with room for an answer and for the EOS that a truncated answer gets before it is scored."""
    room = engine.max_length - sampling.max_tokens - 1
    return await fit_turns_aside(turns, form.prompt, engine.tokenizer, room)


@dataclass(frozen=True, kw_only=True)
class SampleAnswer:
    """The task: Draw in, Answer out, under the name of the ``snapshot`` that is being served."""

    snapshot: str
    dialogue_format: DialogueFormat
    sampling: SamplingSettings
    makes: ClassVar[type[Answer]] = Answer

    def inputs(self, draw: Draw) -> tuple[object, ...]:
        return (settings_of(self),)

    async def __call__(self, engine: TextGenerator, draw: Draw) -> Answer:
        started = time.monotonic()
        form = dialogue(self.dialogue_format, engine.tokenizer)
        turns, ids, truncated = await _fitted(engine, draw.prompt.turns, form, self.sampling)
        completion = await engine.generate(ids, request(draw.seed, self.sampling, form.stop))
        text = spoken(completion, form)
        return self.makes.of(
            draw.prompt,
            id=draw.id,
            status=Status.OK if text else Status.INVALID,
            error=None if text else UNFINISHED if text is None else "empty answer",
            seconds=time.monotonic() - started,
            seed=draw.seed,
            model_version=engine.model_version,
            snapshot=self.snapshot,
            prompt=turns,
            text=text or "",
            token_ids=completion.token_ids,
            finish_reason=completion.finish_reason,
            truncated=truncated,
        )


@dataclass(frozen=True, kw_only=True)
class SampleSuiteAnswer(SampleAnswer):
    """The task: Draw of a SuitePrompt in, SuiteAnswer out."""

    makes: ClassVar[type[Answer]] = SuiteAnswer


@dataclass(frozen=True, kw_only=True)
class SamplePair:
    """The task: Prompt in, Comparison out, with two answers of the policy for the labeller (CAI section 4.1)."""

    seed: int
    dialogue_format: DialogueFormat
    sampling: SamplingSettings

    def inputs(self, prompt: Prompt) -> tuple[object, ...]:
        return (settings_of(self),)

    async def __call__(self, engine: TextGenerator, prompt: Prompt) -> Comparison:
        started = time.monotonic()
        form = dialogue(self.dialogue_format, engine.tokenizer)
        turns, ids, truncated = await _fitted(engine, prompt.turns, form, self.sampling)
        seed = seed_from(self.seed, "comparison", prompt.id)
        first = await engine.generate(ids, request(seed, self.sampling))
        second = await engine.generate(ids, request(seed + 1, self.sampling))
        return Comparison.of(
            prompt,
            status=Status.OK,
            error=None,
            seconds=time.monotonic() - started,
            seed=seed,
            model_version=engine.model_version,
            prompt=turns,
            prompt_ids=tuple(ids),
            answer_1=spoken(first, form) or "",
            answer_2=spoken(second, form) or "",
            token_ids_1=spoken_ids(first, form, engine.tokenizer),
            token_ids_2=spoken_ids(second, form, engine.tokenizer),
            policy_version=first.policy_version_start,
            truncated=truncated,
        )


@dataclass(frozen=True, kw_only=True)
class RollOut:
    """The task: Draw in, RolloutSample out, one sample of the current policy for reinforcement.

    The policy is trained on its token ids and log-probabilities; its text is for a feedback model that rates it. There
    are no stop strings: an answer ends with the EOS or is truncated, and the reward must know which.
    """

    dialogue_format: DialogueFormat
    sampling: SamplingSettings

    async def __call__(self, engine: TextGenerator, draw: Draw) -> RolloutSample:
        started = time.monotonic()
        form = dialogue(self.dialogue_format, engine.tokenizer)
        turns, ids, truncated = await _fitted(engine, draw.prompt.turns, form, self.sampling)
        completion = await engine.generate(ids, request(draw.seed, self.sampling))
        return RolloutSample.of(
            draw.prompt,
            id=draw.id,
            status=Status.OK,
            error=None,
            seconds=time.monotonic() - started,
            seed=draw.seed,
            model_version=engine.model_version,
            prompt=turns,
            prompt_ids=tuple(ids),
            completion=completion,
            truncated=truncated,
        )


def spoken(completion: Completion, form: Dialogue) -> str | None:
    """What a completion says, without its thoughts; None for a thought that has no end."""
    return without_thoughts(completion.text, opened=form.opens_thought)


def spoken_ids(completion: Completion, form: Dialogue, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The ids by which a preference model reads a completion that was sampled without stop strings.

    They are the ids that were sampled, but whichever end token was sampled is the EOS, so that all answers that ended
    look alike. Only where a thought was left out are they the ids of the text that remains.
    """
    said = spoken(completion, form)
    if said != completion.text.strip():
        sampled = tuple(encode(tokenizer, form.answer_prefix + (said or "")))
    else:
        sampled = completion.token_ids[:-1] if completion.finish_reason == "stop" else completion.token_ids
    return (*sampled, tokenizer.eos_token_id) if completion.finish_reason == "stop" else sampled


def ensure_eos(token_ids: tuple[int, ...], eos_id: int) -> tuple[int, ...]:
    """``token_ids`` with exactly one EOS at the end, where the preference score is read."""
    return token_ids if token_ids and token_ids[-1] == eos_id else (*token_ids, eos_id)


@dataclass(frozen=True, kw_only=True)
class ScoreSample:
    """The task: RolloutSample in, ScoredSample out, with the preference model's score, read at the EOS.

    What is scored ends in exactly one EOS: appended to a truncated answer, and in place of another end token. The ids
    and log-probabilities that the policy is trained on stay as sampled: its last action was that other token, and the
    probability of a token that it did not choose would make the ratio of PPO wrong. The value function reads only the
    tokens before each action, so it never sees the difference.
    """

    dialogue_format: DialogueFormat = "human_assistant"

    async def __call__(self, engine: SequenceScorer, sample: RolloutSample) -> ScoredSample:
        form = dialogue(self.dialogue_format, engine.tokenizer)
        read = spoken_ids(sample.completion, form, engine.tokenizer)
        score = await engine.score(sample.prompt_ids + ensure_eos(read, engine.tokenizer.eos_token_id))
        return ScoredSample.of(sample, score=score, preference_model_version=engine.policy_version)


@dataclass(frozen=True, kw_only=True)
class ScoreAnswer:
    """The task: Answer in, AnswerScore out. Scored is the text, because a snapshot may have a tokenizer of its own."""

    dialogue_format: DialogueFormat

    def inputs(self, answer: Answer) -> tuple[object, ...]:
        return (settings_of(self),)

    async def __call__(self, engine: SequenceScorer, answer: Answer) -> AnswerScore:
        started = time.monotonic()
        form = dialogue(self.dialogue_format, engine.tokenizer)
        said = [*encode(engine.tokenizer, form.answer_prefix + answer.text), engine.tokenizer.eos_token_id]
        room = engine.max_length - len(said)
        _, ids, truncated = await fit_turns_aside(answer.prompt, form.prompt, engine.tokenizer, room)
        score = await engine.score((*ids, *said))
        return AnswerScore.of(
            answer,
            status=Status.OK,
            error=None,
            seconds=time.monotonic() - started,
            seed=answer.seed,
            model_version=engine.model_version,
            score=score,
            truncated=truncated,
        )


@dataclass(frozen=True, kw_only=True)
class ScoreRollout:
    """The task: Rollout in, RolloutScore out. Scored are the ids that were sampled, with the EOS for an end token."""

    def inputs(self, rollout: Rollout) -> tuple[object, ...]:
        return (settings_of(self),)

    async def __call__(self, engine: SequenceScorer, rollout: Rollout) -> RolloutScore:
        started = time.monotonic()
        said = rollout.response_ids[:-1] if rollout.finish_reason == "stop" else rollout.response_ids
        score = await engine.score((*rollout.prompt_ids, *ensure_eos(said, engine.tokenizer.eos_token_id)))
        return RolloutScore.of(
            rollout,
            status=Status.OK,
            error=None,
            seconds=time.monotonic() - started,
            seed=rollout.seed,
            model_version=engine.model_version,
            batch=batch_of(rollout.id),
            learned_score=rollout.score,
            score=score,
        )
