import numpy as np
import pytest

from rlaif.statistics.bradley_terry import ELO_PER_UNIT, Matches, Strengths, fitted_strengths, strengths_so_far
from rlaif.statistics.pairing import match_information, next_pairs


def known(elo, errors, *, log_gamma=0.0, log_nu=-2.0):
    """Strengths whose errors are independent; the anchor is the first."""
    elo, errors = np.asarray(elo, dtype=float), np.asarray(errors, dtype=float)
    return Strengths(
        players=tuple(f"player-{number}" for number in range(len(elo))),
        anchor="player-0",
        log_strengths=elo / ELO_PER_UNIT,
        log_gamma=log_gamma,
        log_nu=log_nu,
        covariance=np.diag(np.append((errors / ELO_PER_UNIT) ** 2, (0.01, 0.01))),
    )


def variances_after(strengths, pairs):
    """Of theta, from the information matrix of the pairs' matches in both orders, added up without any updates."""
    num = len(strengths.players)
    precision = np.linalg.inv(strengths.covariance[1:num, 1:num])
    for i, j in pairs:
        x = (np.eye(num)[i] - np.eye(num)[j])[1:]
        difference = strengths.log_strengths[i] - strengths.log_strengths[j]
        for slot in (strengths.log_gamma, -strengths.log_gamma):
            precision += match_information(difference + slot, strengths.log_nu) * np.outer(x, x)
    return np.diag(np.linalg.inv(precision))


def test_the_information_of_a_match_by_hand():
    assert match_information(np.array(0.0), -np.inf) == pytest.approx(0.25)
    assert match_information(np.array(0.0), np.log(2)) == pytest.approx(1 / 8)  # half of them are ties
    assert match_information(np.array(np.log(9)), -np.inf) == pytest.approx(0.9 * 0.1)


@pytest.mark.parametrize("num", [2, 3, 5, 8, 12, 30])
def test_without_matches_the_first_pairs_connect_all(num):
    players = tuple(f"player-{number}" for number in range(num))
    pairs = next_pairs(strengths_so_far(Matches.none(players), players[num // 2]), num - 1)
    judged = Matches(
        players=players,
        slot_a=pairs[:, 0],
        slot_b=pairs[:, 1],
        outcomes=np.full(num - 1, 0.5),
        clusters=np.arange(num - 1),
    )
    assert len(fitted_strengths(judged, players[0]).elo) == num  # refused, were someone left out


def test_a_choice_is_the_best_of_all():
    strengths = known([0, 100, 250, 600, 700], [0, 60, 80, 150, 90], log_gamma=0.4)
    every = np.stack(np.triu_indices(5, 1), axis=1)
    chosen = []
    for pair in next_pairs(strengths, 12):
        costs = [(variances_after(strengths, [*chosen, other]) ** 4).sum() for other in every]
        assert pair.tolist() == every[np.argmin(costs)].tolist()
        chosen.append(pair)


def test_who_is_known_least_is_met_first_and_by_an_equal():
    pairs = next_pairs(known([0, 300, 320, 900], [0, 20, 200, 20]), 1)
    assert pairs.tolist() == [[1, 2]]


def test_which_slot_has_the_advantage_does_not_matter():
    one, other = (known([0, 100, 250, 600], [0, 60, 80, 150], log_gamma=gamma) for gamma in (0.7, -0.7))
    assert next_pairs(one, 20).tolist() == next_pairs(other, 20).tolist()


def test_names_do_not_matter():
    strengths = known([0, 110, 250, 600], [0, 60, 80, 150])
    order = np.array([0, 3, 1, 2])
    moved = known(strengths.elo[order], strengths.elo_errors[order])
    pairs, moved_pairs = next_pairs(strengths, 10), np.sort(order[next_pairs(moved, 10)], axis=1)
    assert pairs.tolist() == moved_pairs.tolist()


def test_what_is_known_is_left_as_it_was():
    strengths = known([0, 100, 200], [0, 100, 100])
    before = strengths.covariance.copy()
    assert next_pairs(strengths, 0).shape == (0, 2)
    assert (next_pairs(strengths, 5).shape, strengths.covariance.tolist()) == ((5, 2), before.tolist())


def test_chosen_pairs_tell_more_than_random_ones():
    """Players over 1,000 Elo, fewer below than above: two thirds of the matches say more, of all and of the worst."""
    strengths = known(1000 * np.linspace(0, 1, 10) ** 0.5, [0, *[1000] * 9])
    rng, every = np.random.default_rng(0), np.stack(np.triu_indices(10, 1), axis=1)
    at_random = variances_after(strengths, rng.choice(every, 900))
    chosen = variances_after(strengths, next_pairs(strengths, 600))
    assert np.sqrt(chosen).mean() < np.sqrt(at_random).mean() and chosen.max() < at_random.max()
