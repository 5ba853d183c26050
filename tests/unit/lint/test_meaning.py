"""The model's part of the lint: both orders count, no finding is repeated, and no answer means no verdict."""

import math

import pytest

from rlaif.engines.scripted import byte_tokenizer
from rlaif.errors import RequestError
from rlaif.lint.draft import draft_of
from rlaif.lint.meaning import MEANING, judge_meaning
from rlaif.lint.structure import findings

PRINCIPLES = [
    {"id": "safe", "category": "harm_avoidance", "comparison": "Which answer is less harmful?"},
    {"id": "tidy", "category": "harm_avoidance", "comparison": "Which answer is less harmful and polite?"},
    {"id": "plain", "category": "helpfulness", "critique_request": "What is missing?", "revision_request": "Add it."},
]
DRAFT = draft_of({"principles": PRINCIPLES}, "c.yaml")


class Judge:
    """A ChoiceScorer that says yes if ``word`` is in the question, with a bias toward slot A."""

    def __init__(self, word: str, *, slot_bias: float = 0.0, mass: float = 1.0, max_length: int = 4096) -> None:
        self.tokenizer = byte_tokenizer()
        self.max_length = max_length
        self._word, self._slot_bias, self._mass = word, slot_bias, mass
        self.questions: list[str] = []

    async def choice_logprobs(self, prompt_ids, choice_ids):
        if len(prompt_ids) > self.max_length:
            raise RequestError("too long")
        text = self.tokenizer.decode(prompt_ids, skip_special_tokens=True)
        self.questions.append(text)
        yes = 2.0 if self._word in text else -2.0
        towards_a = (yes if "(A) yes" in text else -yes) + self._slot_bias
        p_a = 1 / (1 + math.exp(-towards_a))
        return math.log(p_a * self._mass), math.log((1 - p_a) * self._mass)


@pytest.mark.parametrize("slot_bias", [-4.0, 0.0, 4.0])
async def test_yes_is_a_finding_whatever_the_slot(slot_bias):
    found, unjudged = await judge_meaning(Judge("one good answer", slot_bias=slot_bias), DRAFT, ())
    assert [(f.code, f.severity, f.place) for f in found] == [
        ("C101", "warning", "c.yaml: safe"),
        ("C101", "warning", "c.yaml: tidy"),
    ]
    assert not unjudged


async def test_each_rule_asks_of_the_principles_that_it_is_about():
    engine = Judge("never asked")
    assert await judge_meaning(engine, DRAFT, ()) == ((), ())
    asked = {"C101": 2, "C102": 3, "C103": 3, "C104": 2, "C105": 2}
    assert {rule.code for rule in MEANING} == set(asked)
    assert len(engine.questions) == 2 * sum(asked.values())
    assert sum("less harmful and polite?" in q and "worded" in q for q in engine.questions) == 2


async def test_what_words_gave_away_is_not_said_twice():
    by_words = findings(DRAFT)
    assert any((f.code, f.place) == ("C105", "c.yaml: tidy.comparison") for f in by_words)
    found, _ = await judge_meaning(Judge("worded"), DRAFT, by_words)
    assert [(f.code, f.place) for f in found] == [("C105", "c.yaml: safe")]


@pytest.mark.parametrize(("judge_of", "told"), [({"mass": 0.1}, "letters hold 0.100"), ({"max_length": 9}, "too long")])
async def test_no_answer_is_no_verdict(judge_of, told):
    found, unjudged = await judge_meaning(Judge("", **judge_of), DRAFT, ())
    assert not found and len(unjudged) == 12
    assert all(told in line for line in unjudged)
    assert "C101 not judged c.yaml: safe" in unjudged[0]
