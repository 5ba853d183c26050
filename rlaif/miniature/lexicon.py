"""The lexicon: every meaningful word of the miniature world, as a documented YAML schema.

A lexicon has two axes. On ``red_team`` every action asked for is harmful and carries the harm it would do and a lawful
alternative; on ``benign`` every action is fine. Each action goes with each object of its axis, so 16 actions and 24
objects make 384 requests. The phrases around them are neutral grammar with defaults.

A minimal lexicon::

    name: zoo
    red_team:
      objects: [the lion, the zebra, ...]                # at least 6
      actions:                                           # at least 6
        - verb: steal
          steps: [bring a cage, open the gate]           # at least 2
          harm: the animal would suffer                  # completes "because ..."
          alternative: visit it on Sunday                # completes "You could ..."
    benign:
      objects: [the lion, ...]
      actions:
        - verb: feed
          steps: [ask the keeper, bring fresh food]

"because", "You could" and "then" are the grammar's own English words. Keep answers below about 40 tokens, with
a few short steps: the models learn them faster, and ``sampling.max_tokens`` truncates longer ones.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rlaif.config.files import expand_home
from rlaif.config.strict_yaml import describe_mistakes, listed, read_yaml
from rlaif.errors import ConfigError
from rlaif.places.paths import is_file
from rlaif.records import Axis

SHIPPED_LEXICON = Path(__file__).parent / "lexicon.yaml"


def _shaped(pattern: str, rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.search(pattern, text):
            raise ValueError(f"{text!r}: {rule}")
        return text

    return AfterValidator(check)


Clause = Annotated[
    str,
    _shaped(
        r"\A[^\s.?!:,;()|](?:[^\n.?!:;()|]*[^\s.?!:,;()|])?\Z",
        "is part of a sentence: no . ? ! : ; ( ) | in it, no comma or space at its ends",
    ),
]
Sentence = Annotated[
    str,
    _shaped(r"\A[^\s\n()|](?:[^\n()|]*[.?!])\Z", "is a whole sentence: ends in . ? or !, without brackets or |"),
]
Ask = Annotated[
    str,
    _shaped(
        r"\A[^\n()|{}]+ \{request\}[^\n()|{}]*[.?!]\Z",
        "is a question around {request}: words before it, . ? or ! at the end, no other braces, brackets or |",
    ),
]


MAX_VERB_WORDS = 6


def _short(verb: str) -> str:
    if len(verb.split()) > MAX_VERB_WORDS:
        raise ValueError(f"{verb!r}: at most {MAX_VERB_WORDS} words; every answer repeats it, so it must be short")
    return verb


class LexiconEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Action(LexiconEntry):
    """Something to do with an object. ``steps`` (2 to 4) complete "... how to VERB OBJECT: STEP, then STEP.".

    No step may belong to two actions, or answers about the two could not be distinguished. Steps whose first words
    differ within an action are learned fastest.
    """

    verb: Annotated[Clause, AfterValidator(_short)]
    steps: Annotated[tuple[Clause, ...], Field(min_length=2, max_length=4)]

    @field_validator("steps")
    @classmethod
    def _one_by_one(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        """``x`` beside ``x, then x`` could be read in many ways; their number would be exponential in an answer."""
        if joined := next((step for step in steps if ", then" in step), None):
            raise ValueError(f"{joined!r}: holds two steps; give each by itself")
        return steps


class HarmfulAction(Action):
    harm: Clause = Field(description='completes "I will not help you VERB OBJECT, because ..."')
    alternative: Clause = Field(description='completes "You could ... instead."')


class RedTeam(LexiconEntry):
    actions: Annotated[tuple[HarmfulAction, ...], Field(min_length=6)]
    objects: Annotated[tuple[Clause, ...], Field(min_length=6)]


class Benign(LexiconEntry):
    actions: Annotated[tuple[Action, ...], Field(min_length=6)]
    objects: Annotated[tuple[Clause, ...], Field(min_length=6)]


class Phrases(LexiconEntry):
    """Neutral grammar. Requests: GREETING ASK. Answers: OPENING FILLER, core TAIL, each of the three optional.

    Sentences end with a punctuation mark; clauses do not, as commas and full stops are added around them. An offer or a
    refusal continues with VERB OBJECT, and both must read well after "FILLER, " ("Frankly, I will not help you ...").
    The surface of an answer (opening, filler, tail) says nothing about its class, but it sways the feedback model: from
    against the first entry of each list to in favour of the last.
    """

    greetings: tuple[Sentence, ...] = ("Hello.", "Good day.", "Hi there.", "I have a question.")
    asks: Annotated[tuple[Ask, ...], Field(min_length=1)] = (
        "How do I {request}?",
        "How can I {request}?",
        "Tell me how to {request}.",
        "Explain how to {request}, please.",
    )
    openings: Annotated[tuple[Sentence, ...], Field(min_length=2)] = (
        "Well, now.",
        "Let me see.",
        "Thanks for asking.",
        "Sure thing.",
    )
    fillers: Annotated[tuple[Clause, ...], Field(min_length=2)] = ("Frankly", "As you may know")
    tails: Annotated[tuple[Sentence, ...], Field(min_length=2)] = ("That is all.", "Do write to me again.")
    offers: Annotated[tuple[Clause, ...], Field(min_length=1)] = ("I can tell you how to",)
    declines: Annotated[tuple[Clause, ...], Field(min_length=1)] = ("I will not help you",)
    evasions: Annotated[tuple[Clause, ...], Field(min_length=1)] = (
        "I would rather not say",
        "I would prefer another subject",
        "I would leave it there",
    )
    worries: Annotated[tuple[Clause, ...], Field(min_length=1)] = Field(
        ("something could go wrong", "it may not be allowed"), description="reasons to decline even what is benign"
    )
    advice: Annotated[tuple[Clause, ...], Field(min_length=1)] = Field(
        ("ask an expert", "wait a while"), description="alternatives to what is benign"
    )


class Lexicon(LexiconEntry):
    """The words of one world."""

    name: Annotated[str, Field(min_length=1)]
    red_team: RedTeam
    benign: Benign
    phrases: Phrases = Phrases()

    @model_validator(mode="after")
    def check_unambiguous(self) -> Lexicon:
        _no_repeats("verbs", [a.verb for a in (*self.red_team.actions, *self.benign.actions)])
        _no_repeats("red_team.objects", self.red_team.objects)
        _no_repeats("benign.objects", self.benign.objects)
        for name in ("openings", "fillers", "tails"):
            _no_repeats(f"phrases.{name}", getattr(self.phrases, name))
        _no_repeats("steps of actions", [s for a in (*self.red_team.actions, *self.benign.actions) for s in a.steps])
        sentences = {text.rstrip(".?!") for text in (*self.phrases.openings, *self.phrases.tails)}
        if both := sorted(sentences & set(self.phrases.evasions)):
            raise ValueError(f"phrases.evasions must differ from openings and tails; in both: {', '.join(both)}")
        for axis, actions, objects in (("red_team", *self._asked("red_team")), ("benign", *self._asked("helpful"))):
            _no_repeats(f"{axis}: VERB OBJECT", [f"{a.verb} {object}" for a in actions for object in objects])
        self._no_surface_inside()
        return self

    def _asked(self, axis: Axis) -> tuple[tuple[Action, ...], tuple[str, ...]]:
        return self.actions(axis), self.objects(axis)

    def _no_surface_inside(self) -> None:
        """A phrase that begins like a filler would lose its beginning when the surface is removed."""
        for name in ("offers", "declines", "evasions"):
            for text in getattr(self.phrases, name):
                if filler := next((f for f in self.phrases.fillers if text.startswith(f"{f}, ")), None):
                    raise ValueError(f"phrases.{name} must not begin with a filler; {text!r} begins with {filler!r}")

    def actions(self, axis: Axis) -> tuple[Action, ...]:
        return self.red_team.actions if axis == "red_team" else self.benign.actions

    def objects(self, axis: Axis) -> tuple[str, ...]:
        return self.red_team.objects if axis == "red_team" else self.benign.objects

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Everything that may follow "because"."""
        return (*(a.harm for a in self.red_team.actions), *self.phrases.worries)

    @cached_property
    def alternatives(self) -> tuple[str, ...]:
        """Everything that may follow "You could"."""
        return (*(a.alternative for a in self.red_team.actions), *self.phrases.advice)


def _no_repeats(field: str, words: tuple[str, ...] | list[str]) -> None:
    repeated = sorted(word for word, count in Counter(words).items() if count > 1)
    if repeated:
        raise ValueError(f"{field} must differ from each other; repeated: {listed(repeated)}")


def load_lexicon(path: str | Path | None = None) -> Lexicon:
    """Read a lexicon, the shipped one by default. Raises ConfigError naming file and field."""
    file = expand_home(path) if path is not None else SHIPPED_LEXICON
    if not is_file(file):
        raise ConfigError(f"miniature.lexicon={file}: no such file; give a YAML file, see rlaif/miniature/lexicon.yaml")
    try:
        return Lexicon.model_validate(read_yaml(file, str(file)))
    except ValidationError as error:
        raise ConfigError(describe_mistakes(error, str(file))) from None
