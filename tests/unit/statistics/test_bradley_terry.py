import numpy as np
import pytest

from rlaif.statistics.bradley_terry import (
    ELO_PER_UNIT,
    Matches,
    elo_intervals,
    expected_score,
    fitted_strengths,
    mirrored_intervals,
    outcome_probs,
    resampled_elo,
    strengths_so_far,
)

PLAYERS = ("a", "b", "c", "d")
ELO = np.array([0.0, 120.0, 200.0, 450.0])


def matches_of(counts, players=PLAYERS):
    """From {(A, B): (wins of A, wins of B, ties)}, each on a prompt of its own."""
    rows = [
        (a, b, outcome)
        for (a, b), numbers in counts.items()
        for outcome, number in zip((1.0, 0.0, 0.5), numbers, strict=True)
        for _ in range(number)
    ]
    a, b, outcomes = (np.array(column) for column in zip(*rows, strict=True))
    return Matches(players=players, slot_a=a, slot_b=b, outcomes=outcomes, clusters=np.arange(len(rows)))


def simulated(rng, num_prompts, *, log_gamma=0.5, log_nu=-1.0, alike=0.0, elo=ELO):
    """Every prompt has each pair in both orders; ``alike`` is the share of the luck that is the prompt's."""
    from scipy.special import ndtr

    i, j = np.triu_indices(len(elo), 1)
    a, b = np.tile(np.append(i, j), num_prompts), np.tile(np.append(j, i), num_prompts)
    prompts = np.repeat(np.arange(num_prompts), 2 * len(i))
    suits = rng.normal(size=(num_prompts, len(elo)))
    luck = np.sqrt(alike / 2) * (suits[prompts, a] - suits[prompts, b]) + np.sqrt(1 - alike) * rng.normal(size=len(a))
    _, loss, tie = outcome_probs((elo[a] - elo[b]) / ELO_PER_UNIT + log_gamma, log_nu)
    outcomes = np.select([ndtr(luck) < loss, ndtr(luck) < loss + tie], [0.0, 0.5], 1.0)
    players = tuple("abcdefgh"[: len(elo)])
    return Matches(players=players, slot_a=a, slot_b=b, outcomes=outcomes, clusters=prompts)


def changed(matches, **columns):
    names = ("players", "slot_a", "slot_b", "outcomes", "clusters")
    return Matches(**{name: getattr(matches, name) for name in names} | columns)


@pytest.mark.parametrize(("elo", "score"), [(50, 0.5715), (100, 0.6401), (174, 0.7314), (200, 0.7597), (400, 0.9091)])
def test_known_scores(elo, score):
    assert expected_score(elo) == pytest.approx(score, abs=5e-5)
    assert expected_score(-elo) == pytest.approx(1 - score, abs=5e-5)
    win, loss, tie = outcome_probs(np.array(elo / ELO_PER_UNIT), -np.inf)
    assert (win, loss, tie) == pytest.approx((expected_score(elo), expected_score(-elo), 0))
    assert pytest.approx(173.718, abs=5e-4) == ELO_PER_UNIT


def test_the_outcomes_by_hand():
    """Strengths 3 and 1, gamma 4, nu 1 / 2: 12 to 1 to sqrt(12) / 2."""
    total = 12 + 1 + np.sqrt(12) / 2
    win, loss, tie = outcome_probs(np.log(12), np.log(0.5))
    assert (win, loss, tie) == pytest.approx((12 / total, 1 / total, np.sqrt(12) / 2 / total))


def test_strengths_by_hand():
    """Where both orders end alike, there is no advantage of a slot: 3 to 1, and ties to the root of their product."""
    matches = matches_of({(0, 1): (6000, 2000, 2000), (1, 0): (2000, 6000, 2000)}, players=("a", "b"))
    strengths = fitted_strengths(matches, "b")
    assert strengths.log_strengths == pytest.approx([np.log(3), 0], rel=1e-3)
    assert strengths.elo[0] == pytest.approx(190.85, rel=1e-3)
    assert (strengths.log_gamma, strengths.log_nu) == pytest.approx((0, np.log(1 / np.sqrt(3))), rel=1e-3)


def test_an_advantage_of_the_slot_by_hand():
    matches = matches_of({(0, 1): (6000, 2000, 2000), (1, 0): (6000, 2000, 2000)}, players=("a", "b"))
    strengths = fitted_strengths(matches, "b")
    assert strengths.log_strengths == pytest.approx([0, 0], abs=1e-6)
    assert (strengths.log_gamma, strengths.log_nu) == pytest.approx((np.log(3), np.log(1 / np.sqrt(3))), rel=1e-3)


def test_the_error_by_hand():
    """Of 4,000 even matches, each tells a quarter about theta + log gamma or theta - log gamma."""
    matches = matches_of({(0, 1): (1000, 1000, 0), (1, 0): (1000, 1000, 0)}, players=("a", "b"))
    strengths = fitted_strengths(matches, "b")
    assert strengths.elo_errors == pytest.approx([ELO_PER_UNIT / np.sqrt(1000), 0], rel=1e-2)
    assert np.sqrt(strengths.covariance[2, 2]) == pytest.approx(1 / np.sqrt(1000), rel=1e-2)
    assert strengths.covariance[1].tolist() == strengths.covariance[:, 1].tolist() == [0, 0, 0, 0]


def test_known_strengths_are_found_within_their_errors():
    strengths = fitted_strengths(simulated(np.random.default_rng(0), 4000), "a")
    assert strengths.elo == pytest.approx(ELO, abs=10)
    assert (np.abs(strengths.elo - ELO)[1:] < 3 * strengths.elo_errors[1:]).all()
    assert (strengths.log_gamma, strengths.log_nu) == pytest.approx((0.5, -1.0), abs=0.05)


def test_errors_are_those_of_repeated_experiments():
    rng = np.random.default_rng(1)
    fits = [fitted_strengths(simulated(rng, 60), "a") for _ in range(300)]
    spread = np.std([fit.elo for fit in fits], axis=0)
    assert np.mean([fit.elo_errors for fit in fits], axis=0) == pytest.approx(spread, rel=0.12)
    slots = [fit.log_gamma for fit in fits], [np.sqrt(fit.covariance[-2, -2]) for fit in fits]
    assert np.mean(slots[1]) == pytest.approx(np.std(slots[0]), rel=0.12)


def test_names_and_their_order_change_nothing():
    matches = simulated(np.random.default_rng(2), 50)
    order = np.array([2, 0, 3, 1])  # the new index of each player
    renamed = tuple(PLAYERS[old] for old in np.argsort(order))
    before = fitted_strengths(matches, "b")
    after = fitted_strengths(
        changed(matches, players=renamed, slot_a=order[matches.slot_a], slot_b=order[matches.slot_b]), "b"
    )
    assert after.log_strengths[order] == pytest.approx(before.log_strengths, abs=1e-9)
    assert (after.log_gamma, after.log_nu) == pytest.approx((before.log_gamma, before.log_nu))


def test_another_anchor_moves_all_alike():
    matches = simulated(np.random.default_rng(2), 50)
    one, other = (fitted_strengths(matches, anchor) for anchor in ("a", "d"))
    assert one.elo[0] == other.elo[3] == 0
    assert one.elo - one.elo[3] == pytest.approx(other.elo, abs=1e-6)
    assert one.elo_errors[3] == pytest.approx(other.elo_errors[0])


def test_swapped_slots_invert_gamma_and_change_nothing_else():
    matches = simulated(np.random.default_rng(3), 50)
    before = fitted_strengths(matches, "a")
    after = fitted_strengths(
        changed(matches, slot_a=matches.slot_b, slot_b=matches.slot_a, outcomes=1 - matches.outcomes), "a"
    )
    assert after.log_strengths == pytest.approx(before.log_strengths, abs=1e-9)
    assert (after.log_gamma, after.log_nu) == pytest.approx((-before.log_gamma, before.log_nu))


def test_who_wins_all_matches_has_a_finite_strength_and_a_wide_interval():
    even = {(a, b): (10, 10, 5) for a in range(3) for b in range(3) if a != b}
    matches = matches_of(even | {(3, 0): (20, 0, 0), (0, 3): (0, 20, 0)})
    strengths = fitted_strengths(matches, "a")
    assert strengths.elo[:3] == pytest.approx([0, 0, 0], abs=2) and 500 < strengths.elo[3] < 1500
    interval = elo_intervals(matches, "a", seed=0, num_resamples=200)[3]
    assert interval.high - interval.low > 500


def test_matches_without_ties_and_matches_that_are_all_ties():
    without = fitted_strengths(matches_of({(0, 1): (750, 250, 0), (1, 0): (250, 750, 0)}, players=("a", "b")), "b")
    assert without.log_strengths[0] == pytest.approx(np.log(3), rel=1e-2) and np.exp(without.log_nu) < 0.01
    ties = fitted_strengths(matches_of({(0, 1): (0, 0, 50)}, players=("a", "b")), "b")
    assert ties.elo == pytest.approx([0, 0], abs=1e-6) and np.exp(ties.log_nu) > 50


def test_slot_a_that_always_wins_says_nothing_about_strengths():
    strengths = fitted_strengths(matches_of({(0, 1): (50, 0, 0), (1, 0): (50, 0, 0)}, players=("a", "b")), "a")
    assert strengths.elo == pytest.approx([0, 0], abs=1e-6) and 3 < strengths.log_gamma < 20


def test_players_who_never_met_the_anchor_are_named():
    matches = matches_of({(0, 1): (5, 5, 0), (2, 3): (5, 5, 0)})
    with pytest.raises(ValueError, match="no chain of matches leads from 'a' to 'c', 'd'"):
        fitted_strengths(matches, "a")
    assert strengths_so_far(matches, "a").elo == pytest.approx(np.zeros(4), abs=1e-6)
    through_another = matches_of({(0, 1): (5, 5, 0), (1, 2): (5, 5, 0), (3, 2): (5, 5, 0)})
    assert fitted_strengths(through_another, "a").elo == pytest.approx(np.zeros(4), abs=1e-6)
    with pytest.raises(ValueError, match="'e' is not among the players 'a', 'b'"):
        fitted_strengths(matches, "e")


def test_without_matches_all_are_alike_and_nothing_is_known():
    strengths = strengths_so_far(Matches.none(PLAYERS), "a")
    assert strengths.elo.tolist() == [0, 0, 0, 0]
    assert strengths.elo_errors == pytest.approx([0, *[1000 * np.sqrt(2)] * 3])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"outcomes": np.array([1.0, 0.7])}, "ended in something else"),
        ({"slot_b": np.array([0, 2])}, "against itself"),
        ({"slot_b": np.array([1, 4])}, "not in 0 to 3"),
        ({"clusters": np.array([1])}, "different lengths"),
        ({"players": ("a", "b", "c", "a")}, "one name"),
    ],
)
def test_matches_that_are_none_are_refused(columns, words):
    matches = matches_of({(0, 1): (2, 0, 0)})
    with pytest.raises(ValueError, match=words):
        changed(matches, **columns)


def test_a_resample_is_a_fit_of_the_drawn_prompts():
    matches = simulated(np.random.default_rng(4), 20, alike=0.5)
    resampled = resampled_elo(matches, fitted_strengths(matches, "a"), seed=7, num_resamples=3)
    for drawn, elo in zip(
        np.random.default_rng(7).multinomial(20, np.full(20, 1 / 20), size=3), resampled, strict=True
    ):
        rows = np.repeat(np.arange(len(matches)), drawn[matches.clusters])
        columns = {name: getattr(matches, name)[rows] for name in ("slot_a", "slot_b", "outcomes", "clusters")}
        assert elo == pytest.approx(fitted_strengths(changed(matches, **columns), "a").elo, abs=1e-4)


def test_intervals_are_the_seed_s():
    matches = simulated(np.random.default_rng(5), 30)
    first, again, other = (elo_intervals(matches, "a", seed=seed, num_resamples=100) for seed in (0, 0, 1))
    assert first == again != other
    assert first[0].low == first[0].value == first[0].high == 0


def test_matches_told_four_times_say_no_more():
    matches = simulated(np.random.default_rng(6), 100)
    columns = {name: np.repeat(getattr(matches, name), 4) for name in ("slot_a", "slot_b", "outcomes", "clusters")}
    repeated = changed(matches, **columns)
    once, four_times = (elo_intervals(m, "a", seed=0, num_resamples=400)[3] for m in (matches, repeated))
    assert four_times.high - four_times.low == pytest.approx(once.high - once.low, rel=0.1)
    errors = [fitted_strengths(m, "a").elo_errors[3] for m in (matches, repeated)]
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.02)


def test_intervals_mirror_the_resamples_and_are_never_narrower_than_of_independent_matches():
    strengths = fitted_strengths(simulated(np.random.default_rng(6), 100), "a")
    alike = mirrored_intervals(strengths, np.tile(strengths.elo, (50, 1)))[1]
    half = 1.959964 * strengths.elo_errors[1]
    assert (alike.low, alike.high) == pytest.approx((strengths.elo[1] - half, strengths.elo[1] + half))
    far = mirrored_intervals(strengths, strengths.elo + np.linspace(-200, 400, 1001)[:, None])[1]
    assert (far.low, far.high) == pytest.approx((strengths.elo[1] - 385, strengths.elo[1] + 185))


def test_intervals_hold_the_truth_as_often_as_they_say():
    """200 experiments on 80 prompts, each of which suits some players; taken as independent they hold it too seldom."""
    rng, held, naive = np.random.default_rng(8), [], []
    for trial in range(200):
        matches = simulated(rng, 80, alike=0.6)
        strengths = fitted_strengths(matches, "a")
        intervals = mirrored_intervals(strengths, resampled_elo(matches, strengths, seed=trial, num_resamples=300))
        held.append([i.low <= elo <= i.high for i, elo in zip(intervals[1:], ELO[1:], strict=True)])
        naive.append((np.abs(strengths.elo - ELO) <= 1.96 * strengths.elo_errors)[1:])
    assert np.mean(held, axis=0).min() > 0.92 and np.mean(naive) < 0.87
