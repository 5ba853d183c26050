"""Aggregation, verdicts and the un-swapping of the second order (numbers: Lee et al.; the method's section 3)."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.config.schema import Labelling, Reasoning
from rlaif.constitution.principles import PRIORITIES
from rlaif.records import Judgement, Status
from rlaif.statistics.logistic import sigmoid
from rlaif.tasks.labelling import aggregate, log_odds, prob_of, verdict

logits = st.floats(-15, 15)
votes = st.lists(st.tuples(logits, logits), min_size=1, max_size=4)
HOW = ("prob_mean", "logit_mean", "agree_or_tie")


def judgement(order: int, p_a: float, mass: float = 1.0, principle: str = "p") -> Judgement:
    return Judgement(
        principle_id=principle, order=order, logprob_a=math.log(p_a * mass), logprob_b=math.log((1 - p_a) * mass)
    )


def judgements(pairs: list[tuple[float, float]]) -> list[Judgement]:
    """An ensemble whose principles' un-swapped log-odds are ``pairs``."""
    return [
        Judgement(
            principle_id=f"p{i}", order=order, logprob_a=min(0.0, a_over_b) - 1, logprob_b=min(0.0, -a_over_b) - 1
        )
        for i, (l1, l2) in enumerate(pairs)
        for order, a_over_b in ((1, l1), (2, -l2))
    ]


def swapped(made: list[Judgement]) -> list[Judgement]:
    """The same judge's judgements of the swapped pair: its first order is the original's second."""
    return [replace(j, order=3 - j.order) for j in made]


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
    """A judge that adds ``bias`` to slot A gives quality + bias in order 1, quality - bias in order 2 (un-swapped)."""
    assert aggregate(quality + bias, quality - bias, "logit_mean") == pytest.approx(sigmoid(quality), abs=1e-9)


@pytest.mark.parametrize("how", HOW)
@given(pairs=votes, clamp=st.sampled_from([0.0, 0.2, 0.4]))
def test_swapping_the_pair_complements_every_label_exactly(how, pairs, clamp):
    made = judgements(pairs)
    assert prob_of(swapped(made), how, clamp) == 1 - prob_of(made, how, clamp)
    assert prob_of(made, how, clamp) == 1 - prob_of(swapped(made), how, clamp)


# ------------------------------------------------------------------------------------------------ numbers
NO_LOGPROBS = (math.nan, math.inf, -math.inf, None, 0.5, 1e308, -1e308, -3.4e38)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("letter", ["logprob_a", "logprob_b"])
@pytest.mark.parametrize("value", NO_LOGPROBS)
def test_what_is_no_log_probability_makes_the_label_invalid(how, letter, value):
    made = judgements([(1.0, 2.0), (3.0, -1.0)])
    made[2] = replace(made[2], **{letter: value})
    status, prob, error = verdict(made, Labelling(aggregation=how, principles=2, min_letter_mass=0))
    assert (status, prob) == (Status.INVALID, None)
    assert "principle p1, order 1" in error and str(value) in error


anything = st.one_of(st.floats(), st.floats(-30, 0), st.sampled_from(NO_LOGPROBS))


@given(
    pairs=st.lists(st.tuples(anything, anything, anything, anything), min_size=1, max_size=3), how=st.sampled_from(HOW)
)
def test_any_numbers_give_a_probability_or_a_status_and_the_swapped_pair_its_complement(pairs, how):
    made = [
        Judgement(principle_id=f"p{i}", order=order, logprob_a=a, logprob_b=b)
        for i, (a1, b1, a2, b2) in enumerate(pairs)
        for order, a, b in ((1, a1, b1), (2, a2, b2))
    ]
    settings = Labelling(aggregation=how, principles=3)
    status, prob, _ = verdict(made, settings)
    mirrored_status, mirrored, _ = verdict(swapped(made), settings)
    assert status == mirrored_status
    if status in (Status.OK, Status.TIE):
        assert 0 <= prob <= 1 and mirrored == 1 - prob
    else:
        assert prob is None and mirrored is None


# ------------------------------------------------------------------------------------------------ priorities
ranked = st.lists(st.tuples(logits, logits, st.sampled_from(PRIORITIES)), min_size=1, max_size=5)


def ranked_judgements(rows):
    return judgements([(l1, l2) for l1, l2, _ in rows]), {f"p{i}": priority for i, (_, _, priority) in enumerate(rows)}


@pytest.mark.parametrize(
    ("rows", "prob"),
    [
        ([(2, 1, "safety"), (-3, -3, "ethics"), (-3, -3, "helpfulness")], (sigmoid(2) + sigmoid(1)) / 2),
        ([(2, -1, "safety"), (-3, -3, "ethics"), (3, 3, "helpfulness")], sigmoid(-3)),  # safety's orders disagree
        ([(0, 0, "safety"), (1, -1, "ethics"), (1, 3, "guidelines")], (sigmoid(1) + sigmoid(3)) / 2),
        ([(3, 3, "safety"), (-1, -1, "safety"), (-9, -9, "ethics")], (sigmoid(3) + sigmoid(-1)) / 2),
        ([(2, -1, "safety"), (-2, 3, "ethics")], (sigmoid(2) + sigmoid(-1) + sigmoid(-2) + sigmoid(3)) / 4),
    ],
)
def test_the_highest_priority_that_decides_decides_alone(rows, prob):
    made, priorities = ranked_judgements(rows)
    decided, averaged = (Labelling(conflicts=how, principles=2, min_letter_mass=0) for how in ("priority", "mean"))
    assert verdict(made, decided, priorities)[1] == pytest.approx(prob)
    assert verdict(made, averaged, priorities) == verdict(made, averaged)


@pytest.mark.parametrize("how", HOW)
@given(rows=ranked, clamp=st.sampled_from([0.0, 0.4]))
def test_with_priorities_the_swapped_pair_gets_the_complement_exactly(how, rows, clamp):
    made, priorities = ranked_judgements(rows)
    assert prob_of(swapped(made), how, clamp, priorities) == 1 - prob_of(made, how, clamp, priorities)


@pytest.mark.parametrize("how", HOW)
@given(rows=ranked, random=st.randoms(use_true_random=False))
def test_the_order_of_the_principles_does_not_matter(how, rows, random):
    made, priorities = ranked_judgements(rows)
    shuffled = [made[2 * i : 2 * i + 2] for i in range(len(rows))]
    random.shuffle(shuffled)
    other = prob_of([judgement for both in shuffled for judgement in both], how, priorities=priorities)
    assert other == pytest.approx(prob_of(made, how, priorities=priorities), abs=1e-12)


@pytest.mark.parametrize("how", HOW)
@given(pairs=votes, priority=st.sampled_from(PRIORITIES))
def test_equal_priorities_are_averaged(how, pairs, priority):
    made = judgements(pairs)
    assert prob_of(made, how, priorities={j.principle_id: priority for j in made}) == prob_of(made, how)


@given(lower=st.lists(st.tuples(logits, logits), max_size=3))
def test_what_is_below_a_decided_priority_changes_nothing(lower):
    made, priorities = ranked_judgements([(3, 2, "safety"), *((l1, l2, "helpfulness") for l1, l2 in lower)])
    assert prob_of(made, "prob_mean", priorities=priorities) == prob_of(made[:2], "prob_mean")


def test_second_order_is_unswapped():
    """In order 2, slot A holds answer_2: a vote for A is a vote against answer_1."""
    assert log_odds(judgement(1, 0.8)) == pytest.approx(logit(0.8))
    assert log_odds(judgement(2, 0.8)) == pytest.approx(-logit(0.8))
    assert prob_of([judgement(1, 0.8), judgement(2, 0.8)], "prob_mean") == 0.5


def test_an_ensemble_is_the_mean_over_its_principles():
    made = [judgement(order, p, principle=name) for name, p in (("a", 0.9), ("b", 0.6)) for order in (1,)]
    made += [judgement(2, 1 - p, principle=name) for name, p in (("a", 0.9), ("b", 0.6))]
    for how in HOW:
        assert prob_of(made, how) == pytest.approx(0.75)


def test_several_rationales_of_one_principle_are_votes_of_their_own():
    made = [judgement(1, 0.9), judgement(2, 0.1), judgement(1, 0.6), judgement(2, 0.4)]
    assert prob_of(made, "logit_mean") == pytest.approx(0.75)


@pytest.mark.parametrize(("prob", "clamped"), [(0.97, 0.6), (0.02, 0.4), (0.55, 0.55)])
def test_reasoned_labels_are_clamped_after_aggregation(prob, clamped):
    made = [judgement(1, prob), judgement(2, 1 - prob)]
    reasoned = Labelling(reasoning=Reasoning(mode="greedy"))
    assert verdict(made, reasoned)[1] == pytest.approx(clamped)
    assert verdict(made, Labelling())[1] == pytest.approx(prob)


def test_disagreeing_orders_are_a_tie_when_agreement_is_asked_for():
    assert verdict([judgement(1, 0.9), judgement(2, 0.6)], Labelling(aggregation="agree_or_tie"))[:2] == (
        Status.TIE,
        0.5,
    )


def test_one_order_without_letter_mass_makes_the_label_invalid():
    status, prob, error = verdict([judgement(1, 0.9), judgement(2, 0.2, mass=0.3)], Labelling())
    assert (status, prob) == (Status.INVALID, None)
    assert "order 2" in error and "0.300" in error


def test_a_rationale_that_refuses_is_a_refusal():
    mute = replace(judgement(1, 0.5, mass=0.1), rationale="I'm sorry, but I can't compare these.")
    status, prob, error = verdict([mute, judgement(2, 0.2)], Labelling(reasoning=Reasoning(mode="greedy")))
    assert (status, prob) == (Status.REFUSED, None) and "refused" in error


def test_identical_answers_are_a_tie_without_judgements():
    assert verdict([], Labelling()) == (Status.TIE, 0.5, None)
