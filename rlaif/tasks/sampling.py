"""Tasks that draw answers from a model: for SFT, for comparisons, for evaluation and for reinforcement.

Each task is a frozen object that a pool ships to an engine; calling it with a row runs that row's whole
conversation there. Seeds are hashes of what is sampled, never of when, so a resubmitted row draws the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rlaif.config.schema import SamplingSettings
from rlaif.interfaces import SequenceScorer, TextGenerator
from rlaif.prompting.dialogues import DialogueFormat, dialogue
from rlaif.prompting.tokenization import fit_turns
from rlaif.records import (
    Answer,
    Comparison,
    Prompt,
    RolloutSample,
    Sampling,
    ScoredSample,
    Status,
)
from rlaif.seeds import seed_from


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One of several samples to take for a prompt; ``id`` names it among all of its stage."""

    id: str
    prompt: Prompt
    seed: int


def draws(prompt: Prompt, num: int, *seed_key: object) -> list[Draw]:
    """``num`` draws of one prompt, with ids ``PROMPT#0``..."""
    return [Draw(id=f"{prompt.id}#{i}", prompt=prompt, seed=seed_from(*seed_key, prompt.id, i)) for i in range(num)]


def request(seed: int, sampling: SamplingSettings, stop: tuple[str, ...] = ()) -> Sampling:
    return Sampling(max_tokens=sampling.max_tokens, temperature=sampling.temperature, seed=seed, stop=stop)


def prompt_room(engine: TextGenerator, sampling: SamplingSettings) -> int:
    """Tokens that a prompt may have: behind a truncated answer there must be room for the EOS that is scored."""
    return engine.max_length - sampling.max_tokens - 1


@dataclass(frozen=True, kw_only=True)
class SampleAnswer:
    """One answer of the model at hand, kept under the name of the ``snapshot`` that gave it."""

    snapshot: str
    dialogue_format: DialogueFormat
    sampling: SamplingSettings

    async def __call__(self, engine: TextGenerator, draw: Draw) -> Answer:
        started = time.monotonic()
        form = dialogue(self.dialogue_format, engine.tokenizer)
        room = prompt_room(engine, self.sampling)
        turns, ids, _ = fit_turns(draw.prompt.turns, form.prompt, engine.tokenizer, room)
        completion = await engine.generate(ids, request(draw.seed, self.sampling, form.stop))
        text = completion.text.strip()
        return Answer(
            id=draw.id,
            source_file=draw.prompt.source_file,
            source_row=draw.prompt.source_row,
            status=Status.OK if text else Status.INVALID,
            error=None if text else "empty answer",
            seconds=time.monotonic() - started,
            seed=draw.seed,
            model_version=engine.model_version,
            axis=draw.prompt.axis,
            snapshot=self.snapshot,
            prompt=tuple(turns),
            text=text,
            token_ids=completion.token_ids,
            finish_reason=completion.finish_reason,
        )


@dataclass(frozen=True, kw_only=True)
class SamplePair:
    """Two answers of the policy to one prompt, for the labeller to compare (CAI section 4.1)."""

    seed: int
    dialogue_format: DialogueFormat
    sampling: SamplingSettings

    async def __call__(self, engine: TextGenerator, prompt: Prompt) -> Comparison:
        started = time.monotonic()
        form = dialogue(self.dialogue_format, engine.tokenizer)
        room = prompt_room(engine, self.sampling)
        turns, ids, truncated = fit_turns(prompt.turns, form.prompt, engine.tokenizer, room)
        seed = seed_from(self.seed, "comparison", prompt.id)
        first = await engine.generate(ids, request(seed, self.sampling))
        second = await engine.generate(ids, request(seed + 1, self.sampling))
        return Comparison(
            id=prompt.id,
            source_file=prompt.source_file,
            source_row=prompt.source_row,
            status=Status.OK,
            error=None,
            seconds=time.monotonic() - started,
            seed=seed,
            model_version=engine.model_version,
            axis=prompt.axis,
            prompt=tuple(turns),
            prompt_ids=tuple(ids),
            answer_1=first.text.strip(),
            answer_2=second.text.strip(),
            token_ids_1=first.token_ids,
            token_ids_2=second.token_ids,
            policy_version=first.policy_version_start,
            truncated=truncated,
        )


@dataclass(frozen=True, kw_only=True)
class RollOut:
    """One sample of the current policy for reinforcement: token ids and their log-probabilities, no text.

    No stop strings: an answer ends with the EOS or is truncated, which the reward must know.
    """

    dialogue_format: DialogueFormat
    sampling: SamplingSettings

    async def __call__(self, engine: TextGenerator, draw: Draw) -> RolloutSample:
        started = time.monotonic()
        form = dialogue(self.dialogue_format, engine.tokenizer)
        room = prompt_room(engine, self.sampling)
        turns, ids, _ = fit_turns(draw.prompt.turns, form.prompt, engine.tokenizer, room)
        completion = await engine.generate(ids, request(draw.seed, self.sampling))
        return RolloutSample(
            id=draw.id,
            source_file=draw.prompt.source_file,
            source_row=draw.prompt.source_row,
            seconds=time.monotonic() - started,
            seed=draw.seed,
            model_version=engine.model_version,
            axis=draw.prompt.axis,
            prompt=tuple(turns),
            prompt_ids=tuple(ids),
            completion=completion,
        )


def terminated(token_ids: tuple[int, ...], eos_id: int) -> tuple[int, ...]:
    """``token_ids`` ending in exactly the EOS that the preference score is read at."""
    return token_ids if token_ids and token_ids[-1] == eos_id else (*token_ids, eos_id)


@dataclass(frozen=True, kw_only=True)
class ScoreSample:
    """The preference model's score of a rollout, read at the EOS (appended when the answer was truncated)."""

    async def __call__(self, engine: SequenceScorer, sample: RolloutSample) -> ScoredSample:
        response_ids = sample.completion.token_ids
        whole = sample.prompt_ids + terminated(response_ids, engine.tokenizer.eos_token_id)
        return ScoredSample(
            id=sample.id,
            axis=sample.axis,
            prompt_ids=sample.prompt_ids,
            response_ids=response_ids,
            logprobs=sample.completion.logprobs,
            finish_reason=sample.completion.finish_reason,
            score=await engine.score(whole),
            policy_version_start=sample.completion.policy_version_start,
            preference_model_version=engine.policy_version,
        )
