"""Aggregation, verdicts and the un-swapping of the second order (numbers: Lee et al.; the method's section 3)."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.config import Labelling
from rlaif.labelling import aggregate, log_odds, prob_of, sigmoid, verdict
from rlaif.records import Judgement, Status

logits = st.floats(-15, 15)


def judgement(order: int, p_a: float, mass: float = 1.0) -> Judgement:
    return Judgement(
        principle_id="p", order=order, logprob_a=math.log(p_a * mass), logprob_b=math.log((1 - p_a) * mass)
    )


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.mark.parametrize(
    ("p1", "p2", "prob_mean", "logit_mean"),
    [(0.9, 0.3, 0.600, 0.663), (0.99, 0.2, 0.595, 0.833), (0.999, 0.4, 0.6995, 0.963)],
)
def test_aggregation_numbers(p1, p2, prob_mean, logit_mean):
    assert aggregate(logit(p1), logit(p2), "prob_mean") == pytest.approx(prob_mean, abs=5e-4)
    assert aggregate(logit(p1), logit(p2), "logit_mean") == pytest.approx(logit_mean, abs=5e-4)


@given(quality=logits, bias=st.floats(-5, 5))
def test_logit_mean_cancels_an_additive_slot_bias(quality, bias):
    """A judge that adds ``bias`` to slot A says quality + bias first, and quality - bias second (un-swapped)."""
    assert aggregate(quality + bias, quality - bias, "logit_mean") == pytest.approx(sigmoid(quality), abs=1e-9)


@given(l1=logits, l2=logits)
def test_swapping_the_pair_complements_every_aggregation(l1, l2):
    for how in ("prob_mean", "logit_mean", "agree_or_tie"):
        assert aggregate(l1, l2, how) + aggregate(-l2, -l1, how) == pytest.approx(1, abs=1e-12)


def test_second_order_is_unswapped():
    """In order 2, slot A holds answer_2: a vote for A is a vote against answer_1."""
    assert log_odds(judgement(1, 0.8)) == pytest.approx(logit(0.8))
    assert log_odds(judgement(2, 0.8)) == pytest.approx(-logit(0.8))
    assert prob_of([judgement(1, 0.8), judgement(2, 0.8)], "prob_mean") == pytest.approx(0.5)


def test_disagreeing_orders_are_a_tie_when_agreement_is_asked_for():
    assert verdict([judgement(1, 0.9), judgement(2, 0.6)], Labelling(aggregation="agree_or_tie"))[:2] == (
        Status.TIE,
        0.5,
    )


def test_one_order_without_letter_mass_makes_the_label_invalid():
    status, prob, error = verdict([judgement(1, 0.9), judgement(2, 0.2, mass=0.3)], Labelling())
    assert (status, prob) == (Status.INVALID, None)
    assert "order 2" in error and "0.300" in error


def test_identical_answers_are_a_tie_without_judgements():
    assert verdict([], Labelling()) == (Status.TIE, 0.5, None)
