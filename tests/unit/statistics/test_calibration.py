import numpy as np
import pytest

from rlaif.statistics.calibration import (
    MAX_TEMPERATURE,
    bins_from_metrics,
    bins_to_metrics,
    both_ways,
    brier_score,
    cross_entropy,
    expected_calibration_error,
    fitted_temperature,
    reliability,
)


def test_bins_hold_every_probability_once():
    probs = np.array([0.0, 0.05, 0.1, 0.95, 1.0])
    bins = reliability(probs, np.array([0.0, 1.0, 1.0, 1.0, 0.0]))
    assert [(b.low, b.count, b.frequency) for b in bins] == [(0.0, 2, 0.5), (0.1, 1, 1.0), (0.9, 2, 0.5)]
    assert bins[2].mean_prob == pytest.approx(0.975)


def test_bins_travel_as_metrics_and_come_back_in_order():
    bins = reliability(np.array([0.95, 0.05, 0.1]), np.array([1.0, 0.0, 1.0]))
    metrics = bins_to_metrics(bins, "preference/reliability")
    assert metrics["preference/reliability/0.9_mean_prob"] == pytest.approx(0.95)
    assert bins_from_metrics({"preference/fit/loss": 0.5, **metrics}, "preference/reliability") == [
        {"mean_prob": b.mean_prob, "frequency": b.frequency, "count": b.count} for b in bins
    ]


def test_errors_by_hand():
    probs, outcomes = np.array([0.9, 0.9, 0.2, 0.2]), np.array([1.0, 0.0, 0.0, 0.0])
    assert expected_calibration_error(probs, outcomes) == pytest.approx((2 * 0.4 + 2 * 0.2) / 4)
    assert brier_score(probs, outcomes) == pytest.approx((0.01 + 0.81 + 0.04 + 0.04) / 4)


def test_outcomes_drawn_from_the_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    probs = rng.random(20_000)
    outcomes = (rng.random(20_000) < probs).astype(float)
    assert expected_calibration_error(probs, outcomes) < 0.02
    assert expected_calibration_error(probs**3, outcomes) > 0.15
    assert brier_score(np.full(20_000, 0.5), outcomes) == 0.25


def test_temperature_undoes_a_scale():
    logits = np.random.default_rng(0).normal(0, 2, 20_000)
    probs = 1 / (1 + np.exp(-logits))
    for scale in (0.25, 1.0, 3.0):
        assert fitted_temperature(scale * logits, probs) == pytest.approx(scale, rel=1e-3)
    outcomes = (np.random.default_rng(1).random(20_000) < probs).astype(float)
    assert fitted_temperature(3 * logits, outcomes) == pytest.approx(3, rel=0.05)


def test_no_temperature_near_the_fitted_one_is_better():
    logits, outcomes = np.array([3.0, 2.0, 1.0, -0.5]), np.array([1.0, 0.0, 0.7, 0.0])
    best = fitted_temperature(logits, outcomes)
    at_best = cross_entropy(logits / best, outcomes)
    assert all(cross_entropy(logits / (best * factor), outcomes) > at_best for factor in (0.9, 1.1))


def test_temperature_stays_finite_where_all_is_right_or_all_is_wrong():
    logits = np.array([1.0, -2.0])
    assert fitted_temperature(logits, np.array([1.0, 0.0])) == pytest.approx(1 / MAX_TEMPERATURE, rel=1e-3)
    assert fitted_temperature(logits, np.array([0.0, 1.0])) == pytest.approx(MAX_TEMPERATURE, rel=1e-3)


def test_both_ways_adds_every_pair_s_mirror_image():
    assert both_ways(np.array([0.25, 1.0])).tolist() == [0.25, 1.0, 0.75, 0.0]
