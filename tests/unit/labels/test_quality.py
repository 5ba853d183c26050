import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.config.schema import Gate
from rlaif.errors import GateError
from rlaif.labels.quality import check_gate, measure
from rlaif.records import Judgement, Preference, Status, Turn
from rlaif.tasks.labelling import prob_of
from tests.unit.provenance import PROVENANCE

NUMBER = itertools.count()  #: prompts differ, unless a test says otherwise


def label(l1: float, l2: float, **changes) -> Preference:
    """A label whose un-swapped log-odds are l1 and l2."""

    def judgement(order: int, a_over_b: float) -> Judgement:
        # the difference is exact for small and for round log-odds; the letters' mass does not matter here
        return Judgement(principle_id="p", order=order, logprob_a=min(0.0, a_over_b), logprob_b=min(0.0, -a_over_b))

    made = Preference(
        id="f:1",
        **PROVENANCE,
        axis="red_team",
        prompt=(Turn(role="human", text=f"question {next(NUMBER)}"),),
        prompt_ids=(1,),
        answer_1="a",
        answer_2="b",
        token_ids_1=(1, 2, 3),
        token_ids_2=(1,),
        policy_version=0,
        prob=0.75,
        aggregation="prob_mean",
        judgements=(judgement(1, l1), judgement(2, -l2)),
        constitution_hash="h",
        template_version="1",
        truncated=False,
    )
    return replace(made, **changes)


def test_slot_bias_and_flips_of_a_judge_of_known_bias():
    """Quality +1, -1, +0.5 with a bias of 2 toward slot A: l1 = q + 2, l2 = q - 2, so every pair flips to A."""
    metrics = measure(label(q + 2, q - 2) for q in (1, -1, 0.5)).metrics()
    assert metrics["label/quality/slot_bias"] == pytest.approx(2)
    assert metrics["label/quality/flip_rate"] == 1
    assert metrics["label/quality/flips_to_slot_a"] == 1


def test_an_unbiased_judge_does_not_flip():
    metrics = measure(label(q, q) for q in (1, -1)).metrics()
    assert metrics["label/quality/flip_rate"] == 0
    assert metrics["label/quality/order_gap"] == pytest.approx(0)


log_odds = st.one_of(st.just(0.0), st.floats(-8, 8))


@given(
    votes=st.lists(st.tuples(log_odds, log_odds), min_size=1, max_size=12),
    golds=st.lists(st.sampled_from([None, 0.0, 0.5, 1.0]), min_size=12, max_size=12),
)
def test_no_measure_depends_on_which_answer_is_called_the_first(votes, golds):
    labels = [
        replace(plain(l1, l2, "prob_mean"), gold=gold, answer_1="long answer", answer_2="b")
        for (l1, l2), gold in zip(votes, golds, strict=False)
    ]
    found, mirrored = measure(labels).measures(), measure(map(swapped, labels)).measures()
    # the first order of one is the second of the other
    exchanged = {"gold_accuracy_first": "gold_accuracy_second", "gold_accuracy_second": "gold_accuracy_first"}
    assert {exchanged.get(name, name) for name in found} == set(mirrored)
    for name, estimate in found.items():
        assert vars(mirrored[exchanged.get(name, name)]) == pytest.approx(vars(estimate), abs=1e-6), name


def plain(l1: float, l2: float, how: str) -> Preference:
    """A label as ``verdict`` makes it."""
    made = label(l1, l2)
    return replace(made, prob=prob_of(made.judgements, how), aggregation=how)


def swapped(made: Preference) -> Preference:
    return replace(
        made,
        answer_1=made.answer_2,
        answer_2=made.answer_1,
        judgements=tuple(replace(j, order=3 - j.order) for j in made.judgements),
        prob=1 - made.prob,
        gold=None if made.gold is None else 1 - made.gold,
    )


def test_a_vote_without_a_winner_in_one_order_is_no_flip():
    for l1, l2 in ((0.0, -1.0), (1.0, 0.0), (0.0, 0.0)):
        assert measure([label(l1, l2)]).metrics()["label/quality/flip_rate"] == 0
    assert measure([label(1e-200, -1e-200)]).metrics()["label/quality/flip_rate"] == 1


def judged(spread: float, bias: float, noise: float, num: int = 400) -> list[Preference]:
    """Labels of a judge with a bias and independent noise in each order. ``spread``: of the pairs' true log-odds."""
    chance = random.Random(0)
    made = []
    for _ in range(num):
        q = chance.gauss(0, spread)
        made.append(label(q + bias + chance.gauss(0, noise), q - bias + chance.gauss(0, noise)))
    return made


def test_the_order_correlation_is_that_of_both_orders_without_the_bias():
    """Shared variance 4, and 1 for each order alone: a correlation of 0.8 at any bias."""
    found = [measure(judged(spread=2, bias=bias, noise=1)).measures()["order_correlation"] for bias in (0, 3)]
    assert found[0].value == pytest.approx(found[1].value, abs=1e-6)
    assert found[0].low < 0.8 < found[0].high and found[0].high - found[0].low < 0.1
    assert measure(judged(spread=1, bias=3, noise=0)).measures()["order_correlation"].value == pytest.approx(1)


def test_votes_that_are_all_alike_have_no_order_correlation():
    assert "order_correlation" not in measure([label(1, 1)]).measures()
    assert "order_correlation" not in measure([label(2, -2)] * 10).measures()


def test_longer_preferred_counts_probability():
    quality = measure([label(1, 1, answer_1="a longer one", answer_2="short")])
    assert quality.metrics()["label/quality/longer_preferred"] == pytest.approx(0.75)
    (filled,) = [rate for rate in quality.length_bins if rate.num]
    assert filled is quality.length_bins[4]  # 12 characters to 5: between 2 and 4 times as long


def test_every_measure_has_an_interval_that_shrinks():
    few, many = (measure(label(q, q + 1) for q in (1, -0.5) * n).measures() for n in (5, 500))
    assert few["flip_rate"].value == many["flip_rate"].value == 0.5
    for name in ("flip_rate", "slot_bias", "order_gap", "order_correlation"):
        widths = [m[name].high - m[name].low for m in (few, many)]
        assert few[name].low <= few[name].value <= few[name].high
        assert widths[1] <= widths[0]
    assert few["flip_rate"].low == pytest.approx(0.2366, abs=1e-3)  # Wilson's, 5 of 10


def test_votes_of_one_pair_do_not_make_an_interval_narrower():
    """100 pairs, 8 principles that agree, 30 flips: Wilson's interval of 30 in 100, not of 240 in 800."""

    def by_eight(made: Preference) -> Preference:
        ids = [f"p{i}" for i in range(8)]
        return replace(made, judgements=tuple(replace(j, principle_id=id) for id in ids for j in made.judgements))

    labels = [label(*((1, -1) if i < 30 else (1, 1)), gold=float(i % 2)) for i in range(100)]
    one, eight = measure(labels).measures(), measure(map(by_eight, labels)).measures()
    assert (eight["flip_rate"].num, eight["flip_rate"].value) == (800, 0.3)
    assert (eight["flip_rate"].low, eight["flip_rate"].high) == pytest.approx((0.2189, 0.3958), abs=1e-4)
    for name in ("flip_rate", "order_gap", "slot_bias", "agreement", "gold_accuracy_first"):
        assert (eight[name].low, eight[name].high) == pytest.approx((one[name].low, one[name].high), rel=0.01), name
    assert eight["order_correlation"].high - eight["order_correlation"].low > 0.25  # of 800 votes, it would be 0.1


def test_labels_of_one_prompt_are_one_case_as_far_as_they_are_alike():
    """Prompts with two labels each: the same verdicts count once, unlike ones (here always one of each) count twice."""

    def gold(pairs):
        prompts = [(Turn(role="human", text=str(i)),) for i in range(50)]
        labels = [label(1, 1, gold=g, prompt=p) for p, both in zip(prompts, pairs, strict=True) for g in both]
        return measure(labels).measures()["gold_accuracy"]

    alike, unlike = gold([(1.0, 1.0), (0.0, 0.0)] * 25), gold([(1.0, 0.0)] * 50)
    assert (alike.num, unlike.num, alike.value, unlike.value) == (100, 100, 0.5, 0.5)
    assert (alike.low, alike.high) == pytest.approx((0.3664, 0.6336), abs=1e-4)  # Wilson's, 25 of 50
    assert (unlike.low, unlike.high) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Wilson's, 50 of 100
    assert gold([(1.0, 1.0)] * 50).low == pytest.approx(50 / (50 + 1.959964**2))  # Wilson's, 50 of 50


def test_gold_labels_give_accuracy_and_calibration():
    """Two of four labels are right and one is a tie, which counts half; gold of 0.5 is ignored."""
    labels = [
        label(1, 1, prob=0.9, gold=1.0),
        label(-1, -1, prob=0.1, gold=0.0),
        label(1, 1, prob=0.9, gold=0.0),
        label(1, -1, prob=0.5, gold=1.0, status=Status.TIE),
        label(1, 1, prob=0.9, gold=0.5),
        label(1, 1, prob=0.9),
    ]
    quality = measure(labels)
    found = quality.measures()
    assert (found["gold_accuracy"].value, found["gold_accuracy"].num) == (2.5 / 4, 4)
    assert found["gold_accuracy_first"].value == 3 / 4 and found["gold_accuracy_second"].value == 2 / 4
    assert quality.calibration.brier == pytest.approx((0.01 + 0.01 + 0.81 + 0.25) / 4)
    # 0.9 and its mirror image 0.1 are right two times in three; the tie at 0.5 is right half the time.
    assert quality.calibration.error == pytest.approx(0.75 * (0.9 - 2 / 3))


def test_which_answer_is_called_the_first_changes_nothing():
    def mirrored(made: Preference) -> Preference:
        judgements = tuple(replace(j, order=3 - j.order) for j in made.judgements)
        return replace(made, prob=1 - made.prob, gold=1 - made.gold, judgements=judgements)

    labels = [label(0.3 * i - 1, 0.2 * i + 0.05, prob=0.1 + 0.08 * i, gold=float(i % 3 > 0)) for i in range(10)]
    one, other = measure(labels), measure(map(mirrored, labels))
    assert one.calibration.error == pytest.approx(other.calibration.error)
    for name in ("flip_rate", "slot_bias", "order_gap", "order_correlation", "gold_accuracy", "agreement"):
        assert one.measures()[name].value == pytest.approx(other.measures()[name].value)


def test_measures_are_kept_for_each_principle():
    other = tuple(replace(j, principle_id="q") for j in label(2, -2).judgements)
    both = label(1, 1, judgements=(*label(1, 1).judgements, *other))
    by_principle = measure([both]).summary()["by_principle"]
    assert by_principle["p"]["flip_rate"]["value"] == 0
    assert by_principle["q"]["flip_rate"]["value"] == 1
    assert by_principle["q"]["slot_bias"]["value"] == pytest.approx(2)


def test_what_is_not_ok_or_tie_is_counted_as_unusable():
    rows = [label(1, 1), label(1, 1, status=Status.INVALID, prob=None), label(1, 1, status=Status.ERROR, prob=None)]
    assert measure(rows).metrics()["label/quality/invalid_rate"] == pytest.approx(2 / 3)


def test_the_gate_names_what_it_misses_and_how_to_pass():
    metrics = measure([label(1, 1, status=Status.INVALID, prob=None)]).metrics()
    with pytest.raises(GateError, match=r"invalid_rate is 1\.000.*override=\[invalid_rate\]"):
        check_gate(metrics, Gate())
    check_gate(metrics, Gate(override=("invalid_rate",)))


def test_the_gate_minds_gold_labels_where_there_are_some():
    wrong = measure([label(1, 1, gold=0.0)]).metrics()
    with pytest.raises(GateError, match=r"gold_accuracy is 0\.000, below .*override=\[gold_accuracy\]"):
        check_gate(wrong, Gate())
    check_gate(measure([label(1, 1)]).metrics(), Gate())


def test_answers_that_are_alike_are_flipped_by_a_biased_judge_whose_orders_still_agree():
    alike = measure(judged(spread=0.5, bias=2, noise=0.1)).metrics()
    assert alike["label/quality/flip_rate"] > 0.99
    with pytest.raises(GateError, match=r"flip_rate is .*override=\[flip_rate\]"):
        check_gate(alike, Gate())
    check_gate(alike, Gate(override=("flip_rate",)))


def test_the_gate_stops_labels_that_the_slot_decides_and_not_the_answers():
    blind = measure(judged(spread=0, bias=0, noise=2)).metrics()
    assert blind["label/quality/flip_rate"] < 0.6
    with pytest.raises(GateError, match=r"order_correlation is .*, below .*override=\[order_correlation\]"):
        check_gate(blind, Gate())
    check_gate(blind, Gate(override=("order_correlation",)))
