"""Votes to scores, pairs for pretraining, and the held-out report."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from rlaif.algorithms.preference_model import ScoredPair, answer_score, pair_reliability, pair_report, pretraining_pairs
from rlaif.records import ScoredAnswer, ScoredAnswers


def test_scores_first_reach_each_value_at_the_method_s_thresholds():
    thresholds = [1, 2, 5, 11, 22, 45, 90, 181]
    found = [next(n for n in range(1000) if answer_score(n, False) == k) for k in range(1, 9)]
    assert found == thresholds
    assert [answer_score(n, False) for n in (0, 100, 1000)] == [0, 7, 10]


def test_acceptance_adds_one_and_negative_votes_take_one():
    assert answer_score(5, True) == answer_score(5, False) + 1
    assert answer_score(-3, False) == -1
    assert answer_score(-3, True) == 0


def question(*votes: int) -> ScoredAnswers:
    answers = tuple(ScoredAnswer(text=f"a{n}", votes=n, accepted=False) for n in votes)
    return ScoredAnswers(id="q", source_file="f", source_row=0, question="why", answers=answers)


def test_pairs_need_two_answers_with_different_scores():
    assert list(pretraining_pairs(question(3))) == []
    assert list(pretraining_pairs(question(5, 6))) == []
    assert list(pretraining_pairs(question(1, 50))) == [("Question: why\n\nAnswer: a50", "Question: why\n\nAnswer: a1")]
    assert len(list(pretraining_pairs(question(0, 1, 5, 50)))) == 3


def scored(prob: float, difference: float, axis: str = "red_team") -> ScoredPair:
    return ScoredPair(axis=axis, prob=prob, score_1=difference, score_2=0.0, length_1=3, length_2=9)


def test_report_leaves_ties_out_of_accuracy_and_splits_axes():
    report = pair_report([scored(0.9, 1), scored(0.2, 1), scored(0.5, 1), scored(0.1, -1, "helpful")])
    assert report["accuracy"] == pytest.approx(2 / 3)
    assert report["accuracy_red_team"] == 0.5
    assert report["accuracy_helpful"] == 1.0
    expected = np.mean(
        [
            p * math.log1p(math.exp(-d)) + (1 - p) * math.log1p(math.exp(d))
            for p, d in [(0.9, 1), (0.2, 1), (0.5, 1), (0.1, -1)]
        ]
    )
    assert report["loss"] == pytest.approx(expected)
    assert "accuracy" not in pair_report([scored(0.5, 1)])


def test_the_time_of_a_report_does_not_grow_with_the_square_of_the_pairs():
    pairs = [scored(0.9, 1.0 + i % 7, axis) for i in range(50_000) for axis in ("red_team", "helpful")]
    started = time.process_time()
    report = pair_report(pairs)
    assert time.process_time() - started < 8  # about one; an array for each pair took half a minute
    assert report["accuracy"] == report["accuracy_red_team"] == report["accuracy_helpful"] == 1.0


def test_length_correlation_sees_longer_is_better():
    longer = ScoredPair(axis="helpful", prob=1.0, score_1=2.0, score_2=1.0, length_1=20, length_2=10)
    shorter = ScoredPair(axis="helpful", prob=1.0, score_1=1.0, score_2=2.0, length_1=20, length_2=10)
    assert pair_report([longer])["length_correlation"] == pytest.approx(1.0)
    assert pair_report([shorter])["length_correlation"] == pytest.approx(-1.0)


def pair_of(scores, lengths):
    return ScoredPair(
        axis="helpful", prob=1.0, score_1=scores[0], score_2=scores[1], length_1=lengths[0], length_2=lengths[1]
    )


def test_length_correlation_is_of_differences_within_pairs():
    """Score differences 1, 2, -1 with length differences 2, 1, 1: (2 + 2 - 1) / sqrt(6 * 6). Prompts add to both."""
    pairs = [pair_of((1, 0), (2, 0)), pair_of((7, 5), (101, 100)), pair_of((-3, -2), (31, 30))]
    assert pair_report(pairs)["length_correlation"] == pytest.approx(0.5)
    mirrored = [pair_of((p.score_2, p.score_1), (p.length_2, p.length_1)) for p in pairs[:1]] + pairs[1:]
    assert pair_report(mirrored)["length_correlation"] == pytest.approx(0.5)


def test_a_model_that_only_counts_tokens_has_a_length_correlation_of_one():
    """However long the prompts are, and however high their answers score."""
    pairs = [
        pair_of((offset + 0.01 * a, offset + 0.01 * b), (prompt + a, prompt + b))
        for offset, prompt, a, b in [(3.0, 900, 10, 20), (-2.0, 20, 40, 30), (0.0, 400, 5, 9), (8.0, 60, 70, 20)]
    ]
    assert pair_report(pairs)["length_correlation"] == pytest.approx(1)
    assert "length_correlation" not in pair_report([pair_of((1, 0), (9, 9))])


def test_calibration_error_of_honest_and_of_wrong_scores():
    honest = pair_report([scored(0.75, math.log(3)), scored(0.25, -math.log(3)), scored(0.9, math.log(9))])
    assert honest["ece"] == pytest.approx(0, abs=1e-9)
    assert pair_report([scored(0.0, math.log(3))])["ece"] == pytest.approx(0.75)


def test_calibration_does_not_depend_on_which_answer_is_called_the_first():
    """Human pairs have the better answer first; predictions of 0.75 are right for three in four."""
    pairs = [scored(1.0, math.log(3))] * 3 + [scored(1.0, -math.log(3))]
    report = pair_report(pairs)
    assert report["ece"] == pytest.approx(0, abs=1e-9)
    assert report["brier"] == pytest.approx((3 * 0.25**2 + 0.75**2) / 4)
    assert report["temperature"] == pytest.approx(1, rel=1e-3)
    assert [(b.low, b.mean_prob, b.frequency, b.count) for b in pair_reliability(pairs)] == [
        (0.2, pytest.approx(0.25), 0.25, 4),
        (0.7, pytest.approx(0.75), 0.75, 4),
    ]


def test_a_temperature_above_one_says_too_sure():
    assert pair_report([scored(0.75, 2 * math.log(3))])["temperature"] == pytest.approx(2, rel=1e-3)
    assert "temperature" not in pair_report([scored(0.75, 0.0)])


def test_scores_far_apart_are_no_overflow():
    with np.errstate(over="raise", invalid="raise"):
        assert pair_report([scored(0.0, 1000.0), scored(1.0, 1000.0)])["ece"] == pytest.approx(0.5)


def test_equal_scores_are_half_right_whichever_answer_is_the_first():
    pair = ScoredPair(axis="helpful", prob=0.9, score_1=1.0, score_2=1.0, length_1=3, length_2=3)
    assert pair_report([pair])["accuracy"] == pair_report([replace(pair, prob=0.1)])["accuracy"] == 0.5
