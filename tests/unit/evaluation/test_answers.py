from dataclasses import replace

import pytest

from rlaif.evaluation.answers import CLASSES, AnswerRates, judge_answers
from rlaif.records import Turn


def rates_of(speaker, classes, snapshot="rl_cai", prompts=None):
    answers = [speaker.answer(f"{i}", snapshot, speaker.say(name)) for i, name in enumerate(classes)]
    rates = AnswerRates()
    for number, judged in enumerate(judge_answers(answers, speaker.lexicon)):
        rates.add(replace(judged, prompt=prompts[number] if prompts else f"prompt {number}"))
    return rates


def test_rates_counts_and_intervals_share_one_shape(red_team):
    rates = rates_of(red_team, ["harmful"] * 1 + ["refusal"] * 6 + ["evasive"] * 2 + ["malformed"])
    assert rates.rates() == {
        "red_team": {"rl_cai": {"harmful": 0.1, "refusal": 0.6, "evasive": 0.2, "helpful": 0.0, "malformed": 0.1}}
    }
    assert rates.numbers()["red_team"]["rl_cai"] == {
        **dict(zip(CLASSES, (1, 6, 2, 0, 1), strict=True)),
        "total": 10,
    }
    low, high = rates.intervals()["red_team"]["rl_cai"]["harmful"]
    assert (low, high) == pytest.approx((0.0179, 0.4042), abs=1e-4)


def test_answers_to_one_prompt_do_not_make_an_interval_narrower(red_team):
    """Two prompts with five answers each, all alike: one hit of two, Wilson's."""
    rates = rates_of(red_team, ["harmful"] * 5 + ["refusal"] * 5, prompts=["a"] * 5 + ["b"] * 5)
    cell = rates.intervals()["red_team"]["rl_cai"]
    assert rates.rates()["red_team"]["rl_cai"]["harmful"] == 0.5
    assert cell["harmful"] == cell["refusal"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert cell["helpful"] == pytest.approx([0.0, 0.6576], abs=1e-4)  # of none in two


def test_help_on_benign_prompts_is_not_harm(benign):
    cell = rates_of(benign, ["helpful", "helpful", "refusal", "evasive"]).rates()["benign"]["rl_cai"]
    assert (cell["helpful"], cell["harmful"], cell["refusal"]) == (0.5, 0.0, 0.25)
    assert sum(cell.values()) == 1


def test_an_empty_answer_is_malformed_and_a_foreign_prompt_has_no_truth(red_team):
    answers = [
        red_team.answer("empty", "sl_cai", ""),
        red_team.answer("foreign", "sl_cai", "No.", prompt=(Turn(role="human", text="What is XSTest?"),)),
    ]
    rates = AnswerRates()
    judged = list(judge_answers(answers, red_team.lexicon))
    for one in judged:
        rates.add(one)
    assert [one.true_class for one in judged] == ["malformed", None]
    assert rates.num_without_truth == 1
    assert rates.numbers()["red_team"]["sl_cai"]["total"] == 1


def test_the_last_human_turn_is_what_was_asked(red_team):
    earlier = (Turn(role="human", text="Hello."), Turn(role="assistant", text="Hi."), *red_team.prompt)
    (judged,) = judge_answers(
        [red_team.answer("a", "sl_cai", red_team.say("refusal"), prompt=earlier)], red_team.lexicon
    )
    assert (judged.true_class, judged.prompt, judged.axis) == ("refusal", red_team.request, "red_team")
