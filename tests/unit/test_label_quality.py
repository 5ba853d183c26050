import math
from dataclasses import replace

import pytest

from rlaif.config import Gate
from rlaif.errors import GateError
from rlaif.label_quality import check_gate, measure
from rlaif.records import Judgement, Preference, Status, Turn


def label(l1: float, l2: float, **changes) -> Preference:
    """A label whose un-swapped log-odds are l1 and l2."""

    def judgement(order: int, a_over_b: float) -> Judgement:
        p = 1 / (1 + math.exp(-a_over_b))
        return Judgement(principle_id="p", order=order, logprob_a=math.log(p), logprob_b=math.log(1 - p))

    made = Preference(
        id="f:1",
        source_file="f",
        source_row=1,
        status=Status.OK,
        error=None,
        seconds=0.0,
        seed=0,
        model_version="m",
        axis="red_team",
        prompt=(Turn(role="human", text="q"),),
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
    """Quality +1, -1, +0.5 with a bias of 2 towards slot A: l1 = q + 2, l2 = q - 2, so every pair flips to A."""
    metrics = measure(label(q + 2, q - 2) for q in (1, -1, 0.5)).metrics()
    assert metrics["label/quality/slot_bias"] == pytest.approx(2)
    assert metrics["label/quality/flip_rate"] == 1
    assert metrics["label/quality/flips_to_slot_a"] == 1


def test_an_unbiased_judge_does_not_flip():
    metrics = measure(label(q, q) for q in (1, -1)).metrics()
    assert metrics["label/quality/flip_rate"] == 0
    assert metrics["label/quality/order_gap"] == pytest.approx(0)


def test_longer_preferred_counts_probability():
    assert measure([label(1, 1)]).metrics()["label/quality/longer_preferred"] == pytest.approx(0.75)


def test_what_is_not_ok_or_tie_is_counted_as_unusable():
    rows = [label(1, 1), label(1, 1, status=Status.INVALID, prob=None), label(1, 1, status=Status.ERROR, prob=None)]
    assert measure(rows).metrics()["label/quality/invalid_rate"] == pytest.approx(2 / 3)


def test_the_gate_names_what_it_misses_and_how_to_pass():
    metrics = measure([label(1, 1, status=Status.INVALID, prob=None)]).metrics()
    with pytest.raises(GateError, match=r"invalid_rate is 1\.000.*override=\[invalid_rate\]"):
        check_gate(metrics, Gate())
    check_gate(metrics, Gate(override=("invalid_rate",)))
