"""Step 1 of the method: a model answers, criticises its answer against a principle, and rewrites it, K times.

Source: Constitutional AI (arXiv 2212.08073), section 3.1.

Departures from the paper:
1. Each prompt's rounds run as one coroutine next to one engine; nothing waits for the slowest of a batch, and the
   rounds share the engine's prefix cache.
2. A revision with a flaw (below) is kept and named but never trained on, and the next round starts from the text
   before it. A chain without any good revision is invalid.
3. Few-shot transcripts are optional (``critique_revision.examples``): instruct models do not need them.

Flaws, in the order in which they are checked:
- ``unfinished_thought``: the critique or the revision is a thought that was cut off before anything was said.
- ``empty``: no text.
- ``over_long``: cut off at ``max_revision_tokens``, so it has no end.
- ``refused_critique``: the model refused to criticise its answer, so there is nothing to revise by.
- ``critique_as_revision``: it talks about the answer instead of giving one, or repeats the critique.
- ``leaked_prefix``: it announces itself (``announcements``), or holds marks of a thought.
- ``unchanged``: it repeats the text that it was meant to revise.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from rlaif.config.schema import CritiqueRevision, SamplingSettings
from rlaif.constitution.principles import Constitution, Principle, draw_principle
from rlaif.ids import settings_of
from rlaif.interfaces import TextGenerator
from rlaif.prompting.dialogues import Dialogue, DialogueFormat, dialogue
from rlaif.prompting.examples import RevisionExample
from rlaif.prompting.thoughts import THOUGHT_TAG
from rlaif.prompting.tokenization import Pieces, fit_turns_aside
from rlaif.records import Completion, Flaw, Prompt, RevisionChain, Round, Sampling, Status, Turn
from rlaif.seeds import seed_from
from rlaif.tasks.announcements import announces_itself
from rlaif.tasks.labelling import REFUSAL
from rlaif.tasks.sampling import UNFINISHED, spoken

#: A critique speaks of the answer; a revision is one.
ABOUT_THE_ANSWER = re.compile(
    r"\s*(?:critique\s*:"
    r"|the (?:assistant|ai|model)(?:['’]s)? (?:(?:last|previous|first) )?(?:response|answer|reply)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Revise:
    """The task: Prompt in, RevisionChain out."""

    seed: int
    constitution: Constitution
    settings: CritiqueRevision
    dialogue_format: DialogueFormat
    sampling: SamplingSettings
    examples: tuple[RevisionExample, ...] = ()

    def inputs(self, prompt: Prompt) -> tuple[object, ...]:
        """Of the constitution, only the principles that this prompt's rounds are revised by."""
        drawn = [self.principle(prompt, k) for k in range(self.settings.rounds)]
        revised_by = tuple((p.id, p.critique_request, p.revision_request) for p in drawn)
        return settings_of(self, without="constitution"), revised_by

    def principle(self, prompt: Prompt, round: int) -> Principle:
        return draw_principle(self.constitution.for_revision, self.settings.draw, self.seed, prompt.id, round)

    async def __call__(self, engine: TextGenerator, prompt: Prompt) -> RevisionChain:
        started = time.monotonic()
        chat = _Conversation(self, engine, prompt)
        response = await chat.answer()
        rounds = await self._rounds(chat, prompt, response or "")
        error = _unusable(response, rounds)
        return RevisionChain.of(
            prompt,
            status=Status.INVALID if error else Status.OK,
            error=error,
            seconds=time.monotonic() - started,
            seed=chat.seed,
            model_version=engine.model_version,
            prompt=tuple(chat.turns),
            response=response or "",
            rounds=tuple(rounds),
            token_ids=chat.last_token_ids,
            truncated=chat.truncated,
        )

    async def _rounds(self, chat: _Conversation, prompt: Prompt, answer: str) -> list[Round]:
        rounds: list[Round] = []
        for k in range(self.settings.rounds if answer else 0):
            principle = self.principle(prompt, k)
            round = await self._round(chat, principle, answer, k)
            rounds.append(round)
            answer = answer if round.flaw else round.revision
        return rounds

    async def _round(self, chat: _Conversation, principle: Principle, answer: str, k: int) -> Round:
        critique = await chat.critique(answer, principle, k) if self.settings.critique else ""
        if critique is None:  # there is nothing to revise by
            return Round(principle_id=principle.id, critique="", revision="", flaw="unfinished_thought")
        completion = await chat.revision(answer, principle, critique if self.settings.critique else None, k)
        revision, cut_off = spoken(completion, chat.form), completion.finish_reason == "length"
        flaw = "unfinished_thought" if revision is None else flaw_of(answer, critique, revision, cut_off=cut_off)
        return Round(principle_id=principle.id, critique=critique, revision=revision or "", flaw=flaw)


def flaw_of(answer: str, critique: str, revision: str, *, cut_off: bool) -> Flaw | None:
    """What is wrong with ``revision`` of ``answer``, or None."""
    flaws: tuple[tuple[Flaw, object], ...] = (
        ("empty", not revision),
        ("over_long", cut_off),
        ("refused_critique", REFUSAL.match(critique)),
        ("critique_as_revision", revision == critique or ABOUT_THE_ANSWER.match(revision)),
        ("leaked_prefix", announces_itself(revision) or THOUGHT_TAG.search(revision)),
        ("unchanged", revision == answer),
    )
    return next((name for name, applies in flaws if applies), None)


def _unusable(response: str | None, rounds: Sequence[Round]) -> str | None:
    """Why a chain cannot be trained on, or None."""
    if response is None:
        return UNFINISHED
    if not response:
        return "empty answer"
    if all(round.flaw for round in rounds):
        return f"no usable revision: {', '.join(str(round.flaw) for round in rounds)}"
    return None


def filter_metrics(chains: Iterable[RevisionChain]) -> Mapping[str, float]:
    """``revise/filter/...``: how many rounds had each flaw, and how many rounds there were."""
    counts = Counter(round.flaw or "none" for chain in chains for round in chain.rounds)
    of_flaws = {f"revise/filter/{flaw}": float(counts[flaw]) for flaw in get_args(Flaw)}
    return {**of_flaws, "revise/filter/num_rounds": float(counts.total())}


class _Conversation:
    """One prompt's requests to one engine; each drops the oldest turns that exceed the engine's length."""

    def __init__(self, task: Revise, engine: TextGenerator, prompt: Prompt) -> None:
        self._task = task
        self._engine = engine
        self.form: Dialogue = dialogue(task.dialogue_format, engine.tokenizer)
        self._id = prompt.id
        self.turns: Sequence[Turn] = prompt.turns
        self.seed = seed_from(task.seed, "revision", prompt.id)
        self.truncated = False
        self.last_token_ids: tuple[int, ...] = ()

    async def answer(self) -> str | None:
        """None, here and for a critique, when only a thought came."""
        return spoken(await self._ask(self.form.prompt, self._task.sampling.max_tokens, "answer"), self.form)

    async def critique(self, answer: str, principle: Principle, round: int) -> str | None:
        completion = await self._ask(
            lambda turns: self.form.critique(turns, answer, principle, self._task.examples),
            self._task.settings.max_critique_tokens,
            f"critique {round}",
        )
        return spoken(completion, self.form)

    async def revision(self, answer: str, principle: Principle, critique: str | None, round: int) -> Completion:
        return await self._ask(
            lambda turns: self.form.revision(turns, answer, principle, critique, self._task.examples),
            self._task.settings.max_revision_tokens,
            f"revision {round}",
        )

    async def _ask(self, render: Callable[[Sequence[Turn]], str | Pieces], max_tokens: int, purpose: str) -> Completion:
        room = self._engine.max_length - max_tokens
        self.turns, ids, truncated = await fit_turns_aside(self.turns, render, self._engine.tokenizer, room)
        self.truncated |= truncated
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=self._task.sampling.temperature,
            seed=seed_from(self.seed, purpose),
            stop=self.form.stop,
        )
        completion = await self._engine.generate(ids, sampling)
        self.last_token_ids = completion.token_ids
        return completion
