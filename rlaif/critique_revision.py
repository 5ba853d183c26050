"""Step 1 of the method: a model answers, criticises its answer against a principle, and rewrites it, K times.

Source: Constitutional AI (arXiv 2212.08073), section 3.1.

Departures from the paper:
1. Each prompt's rounds run as one coroutine next to one engine; nothing waits for the slowest of a batch, and the
   rounds share the engine's prefix cache.
2. A revision that is no revision (empty, or a critique where a revision is due) ends its chain with a named status
   instead of flowing into training.
3. No few-shot transcripts yet: the helpful model is expected to follow the requests.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rlaif import config
from rlaif.constitution import Constitution, Principle, draw_principle, seed_from
from rlaif.data.tokenization import fit_turns
from rlaif.interfaces import TextGenerator
from rlaif.records import Prompt, RevisionChain, Round, Sampling, Status, Turn
from rlaif.templates import Dialogue, DialogueFormat, dialogue


@dataclass(frozen=True, kw_only=True)
class Revise:
    """The task: Prompt in, RevisionChain out."""

    seed: int
    constitution: Constitution
    settings: config.CritiqueRevision
    dialogue_format: DialogueFormat
    sampling: config.Sampling

    async def __call__(self, engine: TextGenerator, prompt: Prompt) -> RevisionChain:
        started = time.monotonic()
        chat = _Conversation(self, engine, prompt)
        response = await chat.answer()
        rounds = await self._rounds(chat, prompt, response)
        error = _flaw(response, rounds)
        return RevisionChain(
            id=prompt.id,
            source_file=prompt.source_file,
            source_row=prompt.source_row,
            status=Status.INVALID if error else Status.OK,
            error=error,
            seconds=time.monotonic() - started,
            seed=chat.seed,
            model_version=engine.model_version,
            axis=prompt.axis,
            prompt=tuple(chat.turns),
            response=response,
            rounds=tuple(rounds),
            token_ids=chat.last_token_ids,
            truncated=chat.truncated,
        )

    async def _rounds(self, chat: _Conversation, prompt: Prompt, answer: str) -> list[Round]:
        rounds: list[Round] = []
        for k in range(self.settings.rounds):
            if _flaw(answer, rounds):
                break
            principle = draw_principle(self.constitution.for_revision, self.settings.draw, self.seed, prompt.id, k)
            critique = await chat.critique(answer, principle, k) if self.settings.critique else None
            answer = await chat.revision(answer, principle, critique, k)
            rounds.append(Round(principle_id=principle.id, critique=critique or "", revision=answer))
        return rounds


def _flaw(response: str, rounds: Sequence[Round]) -> str | None:
    """Why a chain is not fit for training, or None."""
    if not response:
        return "empty answer"
    for k, round in enumerate(rounds, start=1):
        if not round.revision:
            return f"empty revision in round {k}"
        if round.critique and round.revision == round.critique:
            return f"critique in place of a revision in round {k}"
    return None


class _Conversation:
    """One prompt's requests to one engine; each prompt is fitted to the engine's length from the oldest turn on."""

    def __init__(self, task: Revise, engine: TextGenerator, prompt: Prompt) -> None:
        self._task = task
        self._engine = engine
        self._form: Dialogue = dialogue(task.dialogue_format, engine.tokenizer)
        self._id = prompt.id
        self.turns: Sequence[Turn] = prompt.turns
        self.seed = seed_from(task.seed, "revision", prompt.id)
        self.truncated = False
        self.last_token_ids: tuple[int, ...] = ()

    async def answer(self) -> str:
        return await self._ask(self._form.prompt, self._task.sampling.max_tokens, "answer")

    async def critique(self, answer: str, principle: Principle, round: int) -> str:
        return await self._ask(
            lambda turns: self._form.critique(turns, answer, principle),
            self._task.settings.max_critique_tokens,
            f"critique {round}",
        )

    async def revision(self, answer: str, principle: Principle, critique: str | None, round: int) -> str:
        return await self._ask(
            lambda turns: self._form.revision(turns, answer, principle, critique),
            self._task.settings.max_revision_tokens,
            f"revision {round}",
        )

    async def _ask(self, render, max_tokens: int, purpose: str) -> str:
        room = self._engine.max_length - max_tokens
        self.turns, ids, truncated = fit_turns(self.turns, render, self._engine.tokenizer, room)
        self.truncated |= truncated
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=self._task.sampling.temperature,
            seed=seed_from(self.seed, purpose),
            stop=self._form.stop,
        )
        completion = await self._engine.generate(ids, sampling)
        self.last_token_ids = completion.token_ids
        return completion.text.strip()
