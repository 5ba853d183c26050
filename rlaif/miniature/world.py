"""The miniature world: requests, answers of every class, critiques. Text only; templates are added later.

An answer is OPENING FILLER core TAIL. The core decides its class; the rest is surface, drawn independently of it.
``WorldAnswer.kind`` and ``WorldAnswer.surface`` are known because the text is generated here; they never leave this
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal

from rlaif.miniature.lexicon import Action, HarmfulAction, Lexicon
from rlaif.records import Axis
from rlaif.seeds import seed_from

AnswerKind = Literal["harmful", "helpful", "refusal", "evasive", "malformed"]

HELDOUT_FRACTION = 0.2


@dataclass(frozen=True, kw_only=True)
class WorldRequest:
    """A request for one action with one object."""

    axis: Axis
    action: Action
    object: str
    text: str

    @property
    def phrase(self) -> str:
        return f"{self.action.verb} {self.object}"


@dataclass(frozen=True, kw_only=True)
class WorldAnswer:
    """``surface``: how far its opening, filler and tail sway the feedback model, in log-odds."""

    text: str
    kind: AnswerKind
    surface: float


class World:
    """Everything that can be asked and said, and the combinations held out from all training texts."""

    def __init__(self, lexicon: Lexicon, seed: int) -> None:
        self.lexicon = lexicon
        self.seed = seed

    # ------------------------------------------------------------------------------------------- combinations
    @cached_property
    def heldout(self) -> dict[Axis, list[tuple[Action, str]]]:
        """Combinations for evaluation only; every action and every object also occurs in training."""
        return {axis: self._split(axis)[0] for axis in ("red_team", "helpful")}

    @cached_property
    def training(self) -> dict[Axis, list[tuple[Action, str]]]:
        return {axis: self._split(axis)[1] for axis in ("red_team", "helpful")}

    def _split(self, axis: Axis) -> tuple[list[tuple[Action, str]], list[tuple[Action, str]]]:
        """Each action holds out the next few objects of a shuffled circle, so that all are held out equally often."""
        objects = list(self.lexicon.objects(axis))
        Random(seed_from("heldout", self.seed, axis)).shuffle(objects)
        num_out = max(1, round(HELDOUT_FRACTION * len(objects)))
        heldout: list[tuple[Action, str]] = []
        training: list[tuple[Action, str]] = []
        for row, action in enumerate(self.lexicon.actions(axis)):
            out = {objects[(row * num_out + k) % len(objects)] for k in range(num_out)}
            for object in objects:
                (heldout if object in out else training).append((action, object))
        return heldout, training

    # ----------------------------------------------------------------------------------------------- requests
    def request(self, rng: Random, axis: Axis, *, heldout: bool = False) -> WorldRequest:
        """A request drawn from the training combinations, or from those held out."""
        action, object = rng.choice((self.heldout if heldout else self.training)[axis])
        return self.ask(rng, axis, action, object)

    def ask(self, rng: Random, axis: Axis, action: Action, object: str) -> WorldRequest:
        phrases = self.lexicon.phrases
        ask = rng.choice(phrases.asks).format(request=f"{action.verb} {object}")
        greeting = rng.choice(("", "", *phrases.greetings))
        return WorldRequest(axis=axis, action=action, object=object, text=f"{greeting} {ask}".strip())

    # ------------------------------------------------------------------------------------------------ answers
    def answer(self, rng: Random, request: WorldRequest, kind: AnswerKind) -> WorldAnswer:
        """An answer of ``kind`` with a surface drawn independently of it."""
        opening = _pick(rng, self.lexicon.phrases.openings, 1.5, 0.2)
        filler = _pick(rng, self.lexicon.phrases.fillers, 1.2, 0.4)
        tail = _pick(rng, self.lexicon.phrases.tails, 0.8, 0.4)
        core = self._core(rng, request, kind)
        parts = (opening.text, f"{filler.text}, {core}" if filler.text else core, tail.text)
        return WorldAnswer(
            text=" ".join(part for part in parts if part),
            kind=kind,
            surface=opening.weight + filler.weight + tail.weight,
        )

    def _core(self, rng: Random, request: WorldRequest, kind: AnswerKind) -> str:
        phrases = self.lexicon.phrases
        if kind == "evasive":
            return f"{rng.choice(phrases.evasions)}."
        if kind == "refusal":
            return self._refusal(rng, request)
        if kind == "malformed":
            return self._mistake(rng, request)
        return self._help(rng, request.phrase, request.action)

    def _help(self, rng: Random, phrase: str, action: Action) -> str:
        steps = ", then ".join(_some_in_order(rng, action.steps))
        return f"{rng.choice(self.lexicon.phrases.offers)} {phrase}: {steps}."

    def _refusal(self, rng: Random, request: WorldRequest) -> str:
        """Declines with a reason, an alternative, or both."""
        reason, advice = self._objections(rng, request)
        declined = f"{rng.choice(self.lexicon.phrases.declines)} {request.phrase}"
        form = rng.random()
        because = f", because {reason}" if form < 0.8 else ""
        instead = f" You could {advice} instead." if form >= 0.4 else ""
        return f"{declined}{because}.{instead}"

    def _objections(self, rng: Random, request: WorldRequest) -> tuple[str, str]:
        if isinstance(request.action, HarmfulAction):
            return request.action.harm, request.action.alternative
        phrases = self.lexicon.phrases
        return rng.choice(phrases.worries), rng.choice(phrases.advice)

    def _mistake(self, rng: Random, request: WorldRequest) -> str:
        """Help with another object, another action, or another action's steps; never with a held-out combination."""
        combinations = self.training[request.axis]
        objects = [o for action, o in combinations if action == request.action and o != request.object]
        actions = [action for action, o in combinations if o == request.object and action != request.action]
        other = rng.choice(actions)
        mistake = rng.random()
        if mistake < 0.4:
            return self._help(rng, f"{request.action.verb} {rng.choice(objects)}", request.action)
        if mistake < 0.7:
            return self._help(rng, f"{other.verb} {request.object}", other)
        return self._help(rng, request.phrase, other)

    # ---------------------------------------------------------------------------------------------- critiques
    def critique(self, rng: Random, request: WorldRequest, kind: AnswerKind) -> str:
        """What is wrong with an answer of ``kind``, naming the harm if there is one."""
        start = rng.choice(("The answer", "It"))
        if kind == "harmful":
            assert isinstance(request.action, HarmfulAction)
            return f"{start} shows how to {request.phrase}, and then {request.action.harm}."
        if kind == "refusal":
            return f"{start} declines and says why, which is fine."
        if kind == "evasive":
            return f"{start} declines without a reason."
        return f"{start} helps with a request that does no harm."


@dataclass(frozen=True)
class _Surface:
    text: str
    weight: float


def _pick(rng: Random, texts: Sequence[str], scale: float, absent: float) -> _Surface:
    """One of ``texts``, whose weights are spread evenly over [-scale, scale], or none (weight 0)."""
    if rng.random() < absent:
        return _Surface("", 0.0)
    index = rng.randrange(len(texts))
    return _Surface(texts[index], scale * (2 * index / (len(texts) - 1) - 1))


def _some_in_order(rng: Random, steps: Sequence[str]) -> list[str]:
    """At least two of the steps, in their order."""
    chosen = sorted(rng.sample(range(len(steps)), rng.randint(2, len(steps))))
    return [steps[i] for i in chosen]
