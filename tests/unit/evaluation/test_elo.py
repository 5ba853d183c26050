import numpy as np
import pytest

from rlaif.evaluation.elo import ELO_PER_NAT, expected_score, fit_elo


@pytest.mark.parametrize(
    ("difference", "expected"), [(50, 0.5715), (100, 0.6401), (174, 0.7314), (200, 0.7597), (400, 0.9091)]
)
def test_published_expectations(difference, expected):
    assert expected_score(difference) == pytest.approx(expected, abs=5e-5)
    assert expected_score(-difference) == pytest.approx(1 - expected, abs=5e-5)


def test_one_unit_of_preference_score():
    assert pytest.approx(173.718, abs=5e-4) == ELO_PER_NAT
    assert expected_score(ELO_PER_NAT) == pytest.approx(1 / (1 + np.exp(-1)))


def test_ratings_are_found_again_from_many_matches():
    ratings = np.array([0.0, 120.0, -250.0])
    wins = np.array([[1e6 * expected_score(a - b) for b in ratings] for a in ratings])
    np.fill_diagonal(wins, 0)
    assert fit_elo(wins) == pytest.approx(ratings, abs=0.5)
    assert fit_elo(wins, anchor=1) == pytest.approx(ratings - 120, abs=0.5)


def test_a_player_who_never_lost_has_a_finite_rating():
    ratings = fit_elo(np.array([[0.0, 0.0], [20.0, 0.0]]))
    assert ratings[1] == pytest.approx(ELO_PER_NAT * np.log(20.5 / 0.5), abs=0.5)
