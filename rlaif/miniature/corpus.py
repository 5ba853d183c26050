"""What each tiny model is trained on: templated texts about the training combinations, and which tokens are learned.

A sequence is a list of segments; only tokens of segments with ``learn`` enter the loss. An answer, a critique or a
revision is learned with EOS after it, although in a transcript the next request comes there: so one transcript teaches
three texts. A two-choice question is learned at its letter only, with a soft target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rlaif.constitution.principles import Constitution, Principle
from rlaif.miniature.world import AnswerKind, World, WorldAnswer, WorldRequest
from rlaif.prompting.dialogues import HumanAssistant
from rlaif.prompting.questions import DEFAULT, Question
from rlaif.records import Axis, Turn

#: How a model answers, by axis. The base has seen everything; the helpful-only model does what it is asked.
Mix = Mapping[Axis, Mapping[AnswerKind, float]]
BASE_MIX: Mix = {
    "red_team": {"harmful": 0.5, "refusal": 0.38, "evasive": 0.12},
    "helpful": {"helpful": 0.84, "refusal": 0.11, "evasive": 0.05},
}
HELPFUL_ONLY_MIX: Mix = {
    "red_team": {"harmful": 0.94, "refusal": 0.04, "evasive": 0.02},
    "helpful": {"helpful": 0.99, "refusal": 0.01},
}
JUDGED_MIX: Mix = {
    "red_team": {"harmful": 0.38, "refusal": 0.4, "evasive": 0.17, "malformed": 0.05},
    "helpful": {"helpful": 0.5, "refusal": 0.25, "evasive": 0.19, "malformed": 0.06},
}
#: What revision turns an answer into. A harmful one stays harmful at a known rate, which is higher without a critique.
REVISION_RATES: Mapping[AnswerKind, Mapping[AnswerKind, float]] = {
    "harmful": {"harmful": 0.44, "refusal": 0.5, "evasive": 0.06},
    "evasive": {"refusal": 0.7, "evasive": 0.3},
    "refusal": {"refusal": 1.0},
    "helpful": {"helpful": 1.0},
}
REVISION_RATES_WITHOUT_CRITIQUE: Mapping[AnswerKind, Mapping[AnswerKind, float]] = {
    **REVISION_RATES,
    "harmful": {"harmful": 0.6, "refusal": 0.32, "evasive": 0.08},
}
#: What a class is worth to the feedback model, in log-odds. The surface varies by as much, so the model makes errors.
WORTH: Mapping[Axis, Mapping[AnswerKind, float]] = {
    "red_team": {"refusal": 1.65, "evasive": 0.25, "malformed": -0.5, "harmful": -1.15},
    "helpful": {"helpful": 2.2, "refusal": 0.2, "evasive": -0.6, "malformed": -1.4},
}

DIALOGUE = HumanAssistant()


@dataclass(frozen=True, kw_only=True)
class Segment:
    text: str
    learn: bool


@dataclass(frozen=True, kw_only=True)
class TwoChoice:
    """A two-choice question; ``prob_a`` is the target probability of the letter A."""

    text: str
    prob_a: float


#: The policy's models are saved with logits this much larger than trained, which halves the malformed answers. Their
#: training targets are softened by as much, so that the classes come out at the rates above.
SHARPNESS = 1.2


def draw(rng: Random, rates: Mapping[AnswerKind, float], sharpness: float = 1.0) -> AnswerKind:
    """A class drawn at ``rates``, or at rates**(1/s) with ``sharpness`` s: logits that are s times as large undo it."""
    return rng.choices(list(rates), weights=[rate ** (1 / sharpness) for rate in rates.values()])[0]


def turns(request: WorldRequest) -> tuple[Turn, ...]:
    return (Turn(role="human", text=request.text),)


def choice(request: WorldRequest, principle: Principle, slot_a: WorldAnswer, slot_b: WorldAnswer) -> str:
    """The two-choice question as one text, which this world's tokenizer encodes like the separate pieces."""
    assert principle.comparison is not None
    question = Question(
        template=DEFAULT,
        turns=turns(request),
        comparison=principle.comparison,
        slot_a=slot_a.text,
        slot_b=slot_b.text,
    )
    return "".join(DIALOGUE.choice(question))


class Corpus:
    """Endless training texts of one world and one constitution."""

    def __init__(self, world: World, constitution: Constitution) -> None:
        self.world = world
        self.revising = constitution.for_revision
        self.comparing = constitution.for_comparison
        texts = [t for p in constitution.principles for t in (p.critique_request, p.revision_request, p.comparison)]
        self.words = sorted({word for text in texts if text for word in text.split()})

    # ----------------------------------------------------------------------------------- dialogues, transcripts
    def dialogue(self, rng: Random, mix: Mix) -> list[Segment]:
        """A request and its answer."""
        request, answer = self._exchange(rng, mix, red_team=0.5)
        return [
            Segment(text=DIALOGUE.prompt(turns(request)), learn=False),
            Segment(text=DIALOGUE.answer_prefix + answer.text, learn=True),
        ]

    def transcript(self, rng: Random, mix: Mix, *, learn_answer: bool) -> list[Segment]:
        """A request, its answer, a critique and a revision; some without the critique."""
        request, answer = self._exchange(rng, mix, red_team=0.9)
        principle = self._perturbed(rng, rng.choice(self.revising))
        critique = self.world.critique(rng, request, answer.kind) if rng.random() < 0.85 else None
        outcomes = REVISION_RATES_WITHOUT_CRITIQUE if critique is None else REVISION_RATES
        revision = self.world.answer(rng, request, draw(rng, outcomes[answer.kind], SHARPNESS))
        return self._transcript(request, answer, learn_answer, principle, critique, revision)

    def _exchange(self, rng: Random, mix: Mix, red_team: float) -> tuple[WorldRequest, WorldAnswer]:
        axis: Axis = "red_team" if rng.random() < red_team else "helpful"
        request = self.world.request(rng, axis)
        return request, self.world.answer(rng, request, draw(rng, mix[axis], SHARPNESS))

    def _transcript(
        self,
        request: WorldRequest,
        answer: WorldAnswer,
        learn_answer: bool,
        principle: Principle,
        critique: str | None,
        revision: WorldAnswer,
    ) -> list[Segment]:
        asked = turns(request)
        texts = [(DIALOGUE.prompt(asked), False), (f" {answer.text}", learn_answer)]
        if critique is not None:
            texts += [(DIALOGUE.critique(asked, answer.text, principle), False), (f" {critique}", True)]
        texts += [
            (DIALOGUE.revision(asked, answer.text, principle, critique), False),
            (f" {revision.text}", True),
        ]
        return list(_segments(texts))

    # --------------------------------------------------------------------------------------- two-choice questions
    def questions(self, rng: Random) -> tuple[TwoChoice, TwoChoice]:
        """One comparison in both orders. The target's error is a function of the surface, not noise."""
        axis: Axis = "red_team" if rng.random() < 0.6 else "helpful"
        request = self.world.request(rng, axis)
        first, second = (self.world.answer(rng, request, draw(rng, JUDGED_MIX[axis])) for _ in range(2))
        principle = self._perturbed(rng, rng.choice(self.comparing))
        worth = WORTH[axis]
        gap = worth[first.kind] + first.surface - worth[second.kind] - second.surface
        prob = 1 / (1 + math.exp(-gap))
        return (
            TwoChoice(text=choice(request, principle, first, second), prob_a=prob),
            TwoChoice(text=choice(request, principle, second, first), prob_a=1 - prob),
        )

    def _perturbed(self, rng: Random, principle: Principle) -> Principle:
        """Sometimes the principle in other words, so that the models do not depend on the wording."""
        if rng.random() < 0.7:
            return principle
        fields = ("critique_request", "revision_request", "comparison")
        changed = {f: self._reworded(rng, text) for f in fields if (text := getattr(principle, f)) is not None}
        return principle.model_copy(update=changed)

    def _reworded(self, rng: Random, text: str) -> str:
        words = [word for word in text.split() if rng.random() > 0.15]
        words = [rng.choice(self.words) if rng.random() < 0.15 else word for word in words]
        return " ".join(words) or text


def _segments(texts: Sequence[tuple[str, bool]]) -> Iterator[Segment]:
    """Turn prompts that each repeat everything before them, and answers, into what each text adds."""
    before = ""
    for text, learn in texts:
        added = text.removeprefix(before) if text.startswith(before) and before else text
        before = text if added is not text else before + text
        yield Segment(text=added, learn=learn)
