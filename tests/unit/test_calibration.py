import numpy as np
import pytest

from rlaif.calibration import brier_score, expected_calibration_error, reliability


def test_bins_hold_every_probability_once():
    probs = np.array([0.0, 0.05, 0.1, 0.95, 1.0])
    bins = reliability(probs, np.array([0.0, 1.0, 1.0, 1.0, 0.0]))
    assert [(b.low, b.count, b.frequency) for b in bins] == [(0.0, 2, 0.5), (0.1, 1, 1.0), (0.9, 2, 0.5)]
    assert bins[2].mean_prob == pytest.approx(0.975)


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
