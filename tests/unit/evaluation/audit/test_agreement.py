import math

import numpy as np
import pytest

from rlaif.evaluation.audit.agreement import (
    JudgedPair,
    agreement,
    agrees,
    choice_of,
    effective_number,
    kappa,
    rate,
    weights_of,
)

SURE, UNSURE = "90-100%, orders agree", "50-60%, orders flip"


def pair(verdict="answer_1", prob=0.9, stratum=SURE):
    return JudgedPair(label_id="a:1", stratum=stratum, prob=prob, verdict=verdict, comment="")


# ---------------------------------------------------------------------------------------------------- kappa
def test_kappa_of_a_textbook_table():
    """Fleiss, Statistical Methods for Rates and Proportions, chapter 13: 100 people, two diagnosticians.

    margins .80 .10 .10 and .80 .05 .15, so p_o = .75 + .04 + .10 = .89 and p_e = .64 + .005 + .015 = .66.
    """
    found = kappa(np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]]), num=100)
    assert found.value == pytest.approx((0.89 - 0.66) / (1 - 0.66))
    assert (found.high - found.value) / 1.959964 == pytest.approx(0.0877, abs=5e-5)


def test_kappa_interval_as_stata_gives_it():
    """``kapci`` on 1,932 patients: kappa .3411969, analytical 95% interval .2896668 to .3927271."""
    found = kappa(np.array([[1395, 118], [261, 158]]), num=1932)
    assert (found.value, found.low, found.high) == pytest.approx((0.3411969, 0.2896668, 0.3927271), abs=1e-6)


def test_the_error_of_kappa_is_the_delta_method_s():
    table, step = np.array([[44.0, 5, 1], [7, 20, 3], [9, 5, 6]]), 1e-5
    num = table.sum()
    slopes = np.zeros_like(table)
    for cell in np.ndindex(table.shape):
        nudge = np.zeros_like(table)
        nudge[cell] = step * num
        slopes[cell] = (kappa(table + nudge, num).value - kappa(table - nudge, num).value) / (2 * step)
    p = table / num
    error = math.sqrt(((p * slopes**2).sum() - (p * slopes).sum() ** 2) / num)
    found = kappa(table, num)
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize(
    ("table", "value"), [([[10, 0], [0, 10]], 1.0), ([[5, 5], [5, 5]], 0.0), ([[0, 10], [10, 0]], -1.0)]
)
def test_kappa_is_one_for_the_same_zero_for_chance_and_less_below_it(table, value):
    assert kappa(np.array(table), num=20).value == pytest.approx(value)


def test_where_both_always_chose_the_same_there_is_no_kappa():
    assert kappa(np.array([[10, 0], [0, 0]]), num=10) is None


# ------------------------------------------------------------------------------------------------ agreement
@pytest.mark.parametrize(
    ("prob", "verdict", "expected"),
    [
        (0.9, "answer_1", 1.0),
        (0.9, "answer_2", 0.0),
        (0.1, "answer_2", 1.0),
        (0.9, "tie", 0.5),
        (0.5, "answer_1", 0.5),
        (0.5, "tie", 1.0),
    ],
)
def test_a_tie_on_one_side_is_half_an_agreement(prob, verdict, expected):
    assert agrees(pair(verdict, prob)) == expected


def test_a_label_chooses_the_likelier_answer():
    assert [choice_of(p) for p in (0.51, 0.49, 0.5, 0.5 + 1e-9)] == ["answer_1", "answer_2", "tie", "tie"]


def test_weights_recover_the_agreement_of_a_population():
    # People agree with 0.9 of 900 sure labels and 0.4 of 100 flips: 0.85 of all.
    strata = {SURE: 900, UNSURE: 100}
    pairs = [pair("answer_1" if i < 9 else "answer_2") for i in range(10)]
    pairs += [pair("answer_1" if i < 20 else "answer_2", prob=0.55, stratum=UNSURE) for i in range(50)]
    found = agreement(pairs, strata)
    assert found.judged.value == pytest.approx((9 + 20) / 60)
    assert found.all_labels.value == pytest.approx(0.9 * 0.9 + 0.1 * 0.4)
    assert found.all_labels.low < 0.85 < found.all_labels.high
    assert found.all_labels.high - found.all_labels.low > found.judged.high - found.judged.low
    assert [(s.name, s.num_labels, s.num_judged, s.agreement.value) for s in found.strata] == [
        (SURE, 900, 10, 0.9),
        (UNSURE, 100, 50, 0.4),
    ]
    assert found.coverage == 1.0


def test_a_weighted_kappa_is_that_of_the_table_it_stands_for():
    strata = {SURE: 800, UNSURE: 200}
    pairs = [pair(v, p) for v, p in (("answer_1", 0.9), ("answer_2", 0.05), ("answer_1", 0.05), ("answer_2", 0.05))]
    pairs += [pair(v, 0.55, UNSURE) for v in ("answer_1", "answer_2")]
    counts = np.array([[200 + 100, 100, 0], [200, 400, 0], [0, 0, 0]])
    assert agreement(pairs, strata).kappa_all_labels.value == pytest.approx(kappa(counts, 6).value)


def test_a_stratum_that_nobody_judged_is_in_no_weighted_number():
    found = agreement([pair(), pair()], {SURE: 300, UNSURE: 100})
    assert found.all_labels.value == 1.0
    assert found.coverage == pytest.approx(0.75)
    assert found.strata[1].agreement is None


def test_equal_weights_are_no_weights():
    hits = np.array([1.0, 0.5, 0.0, 1.0])
    assert rate(hits, np.full(4, 7.0)) == rate(hits, np.ones(4))
    assert effective_number(np.full(4, 7.0)) == pytest.approx(4)
    assert effective_number(np.array([1.0, 1.0, 1e9])) == pytest.approx(1)


def test_weights_follow_what_was_judged_not_what_was_sampled():
    assert list(weights_of([pair(), pair(), pair(stratum=UNSURE)], {SURE: 10, UNSURE: 4})) == [5, 5, 4]


def test_the_calibration_is_of_the_label_against_people():
    pairs = [pair("answer_1", 0.8) for _ in range(3)] + [pair("tie", 0.8)]
    found = agreement(pairs, {SURE: 4})
    assert found.expected_calibration_error == pytest.approx(abs(0.8 - 3.5 / 4))
    assert [(b.count, b.frequency) for b in found.bins] == [(4, 0.125), (4, 0.875)]


def test_the_calibration_is_weighted_to_all_labels():
    """900 sure labels at .95 of which people confirm three in four; 100 unsure ones at .55, judged as often: 0 in 4."""
    strata = {SURE: 900, UNSURE: 100}
    pairs = [pair(verdict, 0.95) for verdict in ("answer_1", "answer_1", "answer_1", "answer_2")]
    pairs += [pair("answer_2", 0.55, UNSURE) for _ in range(4)]
    found = agreement(pairs, strata)
    assert found.expected_calibration_error == pytest.approx(0.9 * (0.95 - 0.75) + 0.1 * 0.55)
    assert [(b.low, b.count, b.mean_prob, b.frequency) for b in found.bins[2:]] == [
        (0.5, 4, pytest.approx(0.55), 0.0),
        (0.9, 4, pytest.approx(0.95), 0.75),
    ]


def test_a_bin_weighs_its_rows():
    """Two strata in one bin: 30 labels that are right and 10 that are wrong, at .62 and .68."""
    found = agreement([pair("answer_1", 0.62), pair("answer_2", 0.68, UNSURE)], {SURE: 30, UNSURE: 10})
    assert found.expected_calibration_error == pytest.approx(0.75 - (30 * 0.62 + 10 * 0.68) / 40)
    assert found.bins[-1].frequency == pytest.approx(0.75)


def test_the_calibration_does_not_depend_on_which_answer_is_called_the_first():
    one = agreement([pair("answer_1", 0.93), pair("answer_2", 0.93)], {SURE: 2})
    other = agreement([pair("answer_2", 0.07), pair("answer_2", 0.93)], {SURE: 2})
    assert one.expected_calibration_error == pytest.approx(other.expected_calibration_error) == pytest.approx(0.43)


def test_the_table_has_the_label_as_row_and_people_as_column():
    found = agreement([pair("answer_2", 0.9), pair("tie", 0.9), pair("tie", 0.9)], {SURE: 3})
    assert found.choices == ("answer_1", "answer_2", "tie")
    assert found.table == ((0, 1, 2), (0, 0, 0), (0, 0, 0))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """600 audits of a population with a known share of agreement: 95% coverage, less the noise of 600 draws."""
    rng, strata, truth = np.random.default_rng(0), {"a": 7000, "b": 2000, "c": 1000}, {"a": 0.85, "b": 0.6, "c": 0.4}
    share = sum(strata[name] * truth[name] for name in strata) / 10_000
    weights = np.repeat([strata["a"] / 90, strata["b"] / 60, strata["c"] / 50], [90, 60, 50])
    means = np.repeat([truth["a"], truth["b"], truth["c"]], [90, 60, 50])
    found = [rate((rng.random(200) < means).astype(float), weights) for _ in range(600)]
    assert np.mean([e.low <= share <= e.high for e in found]) > 0.93
