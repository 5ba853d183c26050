"""Rules about what principles mean. All are warnings, because words are weak evidence, and so is a small model.

By words, each rule looks for a few characteristic ones. A model is asked one yes/no question for each rule and
principle, in the way labels are made: a two-choice question in both orders, averaged (``rlaif.tasks.labelling``). The
question is plain text, so that base models understand it too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from rlaif.config.schema import Labelling
from rlaif.errors import RequestError
from rlaif.interfaces import ChoiceScorer
from rlaif.lint.draft import TEXTS, Draft, DraftEntry, Finding, PlacedMessage, Rule, words
from rlaif.prompting.questions import DEFAULT, LETTERS
from rlaif.prompting.tokenization import Pieces, letter_ids
from rlaif.records import Judgement
from rlaif.tasks.labelling import verdict

MAX_WORDS = 60
MAX_OTHERS = 100  #: principles that one question names
COMPARATIVES = frozenset(
    words(
        """more most less least fewer fewest better best worse worst rather prefer preferable safer safest kinder truer
        wiser fairer clearer calmer warmer nicer gentler closer closest stronger weaker longer shorter simpler"""
    )
)
COMPARATIVE_ENDING = re.compile(r"\w{2,}(?:ier|iest)$")  # friendlier, easiest
SPECIFIC = re.compile(r"\d|https?://|[\"“][^\"“”]+[\"”]")
JURISDICTION = re.compile(
    r"""(?:\b(?:GDPR|HIPAA|COPPA|DMCA|CCPA|FBI|CIA|NHS|IRS|FDA|U\.S\.|USA?|UK|EU|(?:First|Second|Fifth)\ Amendment
    |(?:[Pp]enal|[Cc]riminal)\ [Cc]ode|[Ss]upreme\ [Cc]ourt|[Ff]elony|[Mm]isdemeanou?r
    |(?:American|British|European|German|French|Chinese|Indian|Californian?|[Ff]ederal|[Ss]tate)\ [Ll]aws?)(?!\w)|§)""",
    re.VERBOSE,
)
STYLE = frozenset(
    words(
        """style tone polite politely politeness friendly friendlier formal informal concise brief short shorter length
        verbose eloquent elegant cheerful humorous witty emoji emojis markdown bullet grammar spelling preachy"""
    )
)
DEMAND = re.compile(r"\b(?P<way>more|most|less|least|fewer|fewest)\s+(?P<what>[a-z]+)", re.IGNORECASE)


# ---------------------------------------------------------------------------------------------------- by words
def _compares(draft: Draft) -> Iterator[PlacedMessage]:
    for entry in draft.entries:
        said = words(entry.text("comparison"))
        if said and COMPARATIVES.isdisjoint(said) and not any(COMPARATIVE_ENDING.match(word) for word in said):
            yield f"{entry.place}.comparison", 'compares nothing; ask e.g. "Which answer is less ...?"'


def _general(draft: Draft) -> Iterator[PlacedMessage]:
    for entry in draft.entries:
        for field, text in entry.texts.items():
            if found := SPECIFIC.search(text):
                yield f"{entry.place}.{field}", f"may be too specific to guide other cases: {found[0]}"
            elif len(words(text)) > MAX_WORDS:
                yield f"{entry.place}.{field}", f"may be too specific: {len(words(text))} words, above {MAX_WORDS}"


def _anywhere(draft: Draft) -> Iterator[PlacedMessage]:
    for entry in draft.entries:
        for field, text in entry.texts.items():
            if found := JURISDICTION.search(text):
                yield (
                    f"{entry.place}.{field}",
                    f"depends on a jurisdiction: {found[0]}; name the value that the law protects",
                )


def _consistent(draft: Draft) -> Iterator[PlacedMessage]:
    """Each principle is compared with the first that demands the opposite."""
    first: dict[tuple[str | None, str, bool], str] = {}
    for entry in draft.entries:
        demands = [(entry.priority, what, up) for up in (True, False) for what in sorted(_demands(entry, up=up))]
        opposed = [(place, what) for priority, what, up in demands if (place := first.get((priority, what, not up)))]
        for other in dict.fromkeys(place for place, _ in opposed):
            shared = ", ".join(sorted({what for place, what in opposed if place == other}))
            yield f"{entry.place}.comparison", f"demands the opposite of {other} ({shared}) at the same priority"
        for demand in demands:
            first.setdefault(demand, entry.place)


def _demands(entry: DraftEntry, *, up: bool) -> set[str]:
    """What a comparison asks for more of, or less of."""
    found = DEMAND.finditer(entry.text("comparison").lower())
    return {match["what"] for match in found if match["way"].startswith("mo") == up}


def _safety_alone(draft: Draft) -> Iterator[PlacedMessage]:
    for entry in draft.entries:
        for field, text in entry.texts.items():
            if entry.priority == "safety" and (style := STYLE.intersection(words(text))):
                mixed = f"mixes style with safety: {', '.join(sorted(style))}; make it two principles"
                yield f"{entry.place}.{field}", mixed


# ------------------------------------------------------------------------------------------------ by a question
def _ask_compares(draft: Draft, entry: DraftEntry) -> str | None:
    if not entry.text("comparison"):
        return None
    return "Does its comparison describe one good answer, instead of asking which of two answers is better in some way?"


def _ask_specific(draft: Draft, entry: DraftEntry) -> str | None:
    return "Is it so specific that it says nothing about most conversations?" if entry.texts else None


def _ask_jurisdiction(draft: Draft, entry: DraftEntry) -> str | None:
    return "Does it depend on the law of a particular country or state?" if entry.texts else None


def _ask_contradiction(draft: Draft, entry: DraftEntry) -> str | None:
    others = [e for e in draft.entries if e is not entry and e.priority == entry.priority and e.texts]
    if not entry.texts or not others:
        return None
    texts = (other.text("comparison") or other.text("revision_request") for other in others[:MAX_OTHERS])
    listed = "\n".join(f"- {text}" for text in texts)
    return f"Does it demand the opposite of one of these other principles?\n{listed}"


def _ask_style(draft: Draft, entry: DraftEntry) -> str | None:
    if entry.priority != "safety" or not entry.texts:
        return None
    return "Does it judge how an answer is worded, besides whether the answer is safe?"


MEANING = (
    Rule(
        code="C101",
        severity="warning",
        title="a comparison is phrased comparatively",
        check=_compares,
        ask=_ask_compares,
        passing='principles: [{comparison: "Which answer is less rude?"}, {comparison: "Which answer is friendlier?"}]',
        failing='principles: [{comparison: "Which answer is harmless?"}]',
    ),
    Rule(
        code="C102",
        severity="warning",
        title="a principle is general enough to guide cases that it does not name",
        check=_general,
        ask=_ask_specific,
        passing='principles: [{comparison: "Which answer gives less help with a crime?"}]',
        failing='principles: [{comparison: "Which answer gives less help to rob 2 banks?"}]',
    ),
    Rule(
        code="C103",
        severity="warning",
        title="a principle holds in every jurisdiction; its source may name a law",
        check=_anywhere,
        ask=_ask_jurisdiction,
        passing='principles: [{source: GDPR, comparison: "Which answer respects privacy more?"}]',
        failing='principles: [{comparison: "Which answer respects the GDPR more?"}]',
    ),
    Rule(
        code="C104",
        severity="warning",
        title="principles that contradict each other have different priorities",
        check=_consistent,
        ask=_ask_contradiction,
        passing='principles: [{category: honesty, comparison: "Which answer is more detailed?"}, '
        '{category: harm_avoidance, comparison: "Which answer is less detailed?"}]',
        failing='principles: [{category: honesty, comparison: "Which answer is more detailed?"}, '
        '{category: honesty, comparison: "Which answer is less detailed?"}]',
    ),
    Rule(
        code="C105",
        severity="warning",
        title="a safety principle asks for safety only, not for style",
        check=_safety_alone,
        ask=_ask_style,
        passing='principles: [{category: helpfulness, comparison: "Which answer is more polite?"}, '
        '{category: harm_avoidance, comparison: "Which answer is less harmful?"}]',
        failing='principles: [{category: harm_avoidance, comparison: "Which answer is less harmful and more polite?"}]',
    ),
)


# -------------------------------------------------------------------------------------------------- by a model
async def judge_meaning(
    engine: ChoiceScorer, draft: Draft, by_words: Sequence[Finding]
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """(a model's findings that ``by_words`` does not have yet, what could not be judged and why)."""
    questions = [
        (rule, entry, question)
        for rule in MEANING
        for entry in draft.entries
        if rule.ask is not None and (question := rule.ask(draft, entry)) is not None
    ]
    answers = await asyncio.gather(*(_prob_yes(engine, entry, question) for _, entry, question in questions))
    known = {(finding.code, finding.place) for finding in by_words}
    findings, unjudged = [], []
    for (rule, entry, _), (prob, error) in zip(questions, answers, strict=True):
        finding = rule.finding(draft, entry.place, f"a model doubts that {rule.title}")
        if prob is None:
            unjudged.append(f"{rule.code} not judged {finding.place}: {error}")
        elif prob > 0.5 and known.isdisjoint((rule.code, place) for place in _places(finding)):
            findings.append(replace(finding, message=f"{finding.message} (at {prob:.2f})"))
    return tuple(findings), tuple(unjudged)


async def _prob_yes(engine: ChoiceScorer, entry: DraftEntry, question: str) -> tuple[float | None, str | None]:
    """P(yes) averaged over both orders, or None and the reason why there is none."""
    try:
        judgements = await asyncio.gather(_look(engine, entry, question, 1), _look(engine, entry, question, 2))
    except RequestError as failure:
        return None, str(failure)
    _, prob, error = verdict(judgements, Labelling())
    return prob, error


async def _look(engine: ChoiceScorer, entry: DraftEntry, question: str, order: Literal[1, 2]) -> Judgement:
    slots = ("yes", "no") if order == 1 else ("no", "yes")
    prompt_ids, letters = letter_ids(engine.tokenizer, _question(entry, question, *slots), LETTERS)
    logprob_a, logprob_b = await engine.choice_logprobs(prompt_ids, letters)
    return Judgement(principle_id=entry.place, order=order, logprob_a=logprob_a, logprob_b=logprob_b)


def _question(entry: DraftEntry, question: str, slot_a: str, slot_b: str) -> Pieces:
    texts = "\n".join(entry.texts.values())
    asked = f"Consider the following principle for an AI assistant:\n{texts}\n\n{question}"
    return Pieces((f"{asked}\n\nOptions:\n(A) {slot_a}\n(B) {slot_b}", DEFAULT.closing))


def _places(finding: Finding) -> tuple[str, ...]:
    """The principle that a finding is about, and its fields."""
    return (finding.place, *(f"{finding.place}.{field}" for field in TEXTS))
