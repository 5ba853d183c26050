"""Players' strengths from matches in pairs, with ties and an advantage of slot A, and their intervals.

A match of player i in slot A against player j in slot B has three outcomes, with probabilities

    P(A wins) : P(B wins) : P(tie) = gamma pi_i : pi_j : nu sqrt(gamma pi_i pi_j)

or, with theta = log pi and d = theta_i - theta_j + log gamma, e^(d/2) : e^(-d/2) : nu. So gamma multiplies the odds of
whoever is in slot A, and nu is the odds of a tie, against either win, between players who are equal once the slot is
counted. Only differences of strengths have a meaning: those of one player, the anchor, are set to 0. On Elo's scale a
strength is 400 / ln 10 theta, and without ties and slots P(i wins) = 1 / (1 + 10^((elo_j - elo_i) / 400)).

The log-likelihood is concave in (theta, log gamma, log nu), and all it needs of the matches is how many each pair had
in each slot order, and how they ended. Hence the sums by pair and prompt, of which every resample is a matrix product.

Shapes: N matches, P players, G pairs in slot order that met, C clusters, R resamples. Coefficients [P + 2] are theta by
player, log gamma, log nu; the fit leaves out the anchor's: [P + 1].
Sources: Bradley and Terry (Biometrika 39, 1952); Davidson (JASA 65, 1970) for ties; Davidson and Beaver (Biometrics 33,
1977) for the order; Cameron, Gelbach and Miller (Review of Economics and Statistics 90, 2008) for resampling clusters;
Davison and Hinkley (Bootstrap Methods and Their Application, 1997) for mirrored percentiles, their basic interval; Bach
(Electronic Journal of Statistics 4, 2010) for Newton's steps.

Departures from the sources:
1. Davidson and Beaver's ties weigh nu' sqrt(pi_i pi_j). Here nu' = nu sqrt(gamma), which are the same models; but what
   is called A is then arbitrary: with all slots swapped, gamma becomes 1 / gamma, and all else stays as it is.
2. A weak penalty: strengths are normal around their mean, log gamma and log nu around 0, with a standard deviation of
   PENALTY_ELO. It keeps finite who wins all matches, and nu without a tie (then small, not 0), depends neither on names
   nor on the anchor, and moves a strength known to 50 Elo by less than 0.3% of its distance from the mean.
3. An interval is never narrower than if the matches were independent, by Fisher's information. Resamples of a player
   who won all matches are all alike, which would look like certainty. See also departure 1 of ``clusters``.
4. The most likely strengths lie too far apart, by some 0.2 standard errors in a few thousand matches, and a resample's
   do so once more. Percentiles [low, high] of resamples have this error twice, so that they hold the truth too seldom;
   mirrored at the estimate x, [2 x - high, 2 x - low], they do not have it. ``benchmarks.matches`` measures both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.statistics.estimates import Estimate
from rlaif.statistics.intervals import Z_95

ELO_PER_UNIT = 400 / math.log(10)  #: of a log-strength
PENALTY_ELO = 1000.0
NUM_RESAMPLES = 1000
MAX_NEWTON_STEPS = 200
MAX_STRETCH = 1.5  #: of |change of d| + |change of log nu| in a step; below 1.79 every step gains


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Each row is one match, judged once: who was in which slot, how it ended, and the prompt it was on."""

    players: tuple[str, ...]
    slot_a: np.ndarray  #: [N] index of a player
    slot_b: np.ndarray
    outcomes: np.ndarray  #: 1 where A won, 0 where B won, 0.5 for a tie
    clusters: np.ndarray  #: a number; matches with the same one belong together

    def __post_init__(self) -> None:
        columns = (self.slot_a, self.slot_b, self.outcomes, self.clusters)
        if len({column.shape for column in columns}) > 1 or self.slot_a.ndim != 1:
            raise ValueError("the columns of matches are of different lengths")
        if len(set(self.players)) < len(self.players):
            raise ValueError("two players have one name")
        indices = np.concatenate([self.slot_a, self.slot_b])
        if not np.isin(indices, np.arange(len(self.players))).all():
            raise ValueError(f"a match is of a player whose index is not in 0 to {len(self.players) - 1}")
        if (self.slot_a == self.slot_b).any():
            raise ValueError("a match is of a player against itself")
        if not np.isin(self.outcomes, (0.0, 0.5, 1.0)).all():
            raise ValueError("a match ended in something else than 1 (A won), 0 (B won) or 0.5 (a tie)")

    def __len__(self) -> int:
        return len(self.slot_a)

    @classmethod
    def none(cls, players: Sequence[str]) -> Matches:
        indices = np.array([], dtype=np.int64)
        return cls(
            players=tuple(players), slot_a=indices, slot_b=indices, outcomes=np.array([], dtype=float), clusters=indices
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Strengths:
    """What is known of the players; the anchor's strength is 0."""

    players: tuple[str, ...]
    anchor: str
    log_strengths: np.ndarray  #: [P] theta
    log_gamma: float  #: of slot A
    log_nu: float  #: of ties
    covariance: np.ndarray  #: [P + 2, P + 2] of theta, log gamma and log nu; 0 for the anchor

    @property
    def elo(self) -> np.ndarray:
        scores: np.ndarray = ELO_PER_UNIT * self.log_strengths
        return scores

    @property
    def elo_errors(self) -> np.ndarray:
        """[P] standard errors, as if the matches were independent."""
        errors: np.ndarray = ELO_PER_UNIT * np.sqrt(np.diag(self.covariance)[:-2])
        return errors


def expected_score(elo_difference: float) -> float:
    """Of the first player, without ties or an advantage of its slot."""
    return 1 / (1 + math.pow(10, -elo_difference / 400))


def outcome_probs(difference: np.ndarray, log_nu: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(A wins), P(B wins), P(tie) at d, A's log-strength with its slot's advantage less B's."""
    log_total = np.logaddexp(np.logaddexp(difference / 2, -difference / 2), log_nu)
    return np.exp(difference / 2 - log_total), np.exp(-difference / 2 - log_total), np.exp(log_nu - log_total)


def fitted_strengths(matches: Matches, anchor: str) -> Strengths:
    """The most likely strengths. Refused when some player never met the anchor, not even through others' matches."""
    apart = _apart(matches, _index(matches, anchor))
    if apart:
        raise ValueError(f"no chain of matches leads from {anchor!r} to {', '.join(map(repr, apart))}")
    return strengths_so_far(matches, anchor)


def strengths_so_far(matches: Matches, anchor: str) -> Strengths:
    """As ``fitted_strengths``, but of any matches, even none: the penalty alone says where the others would be."""
    index = _index(matches, anchor)
    sums = _Sums.of(matches)
    likelihood = _Likelihood.of(sums, len(matches.players), index)
    totals = sums.weighted(np.ones((1, sums.matches.shape[0])))
    (coefficients,) = likelihood.maximum(totals, np.zeros((1, len(matches.players) + 1)))
    _, information = likelihood.slopes(totals, coefficients[None])
    covariance = np.insert(np.insert(np.linalg.inv(information[0]), index, 0, axis=0), index, 0, axis=1)
    return Strengths(
        players=matches.players,
        anchor=anchor,
        log_strengths=np.insert(coefficients[:-2], index, 0),
        log_gamma=float(coefficients[-2]),
        log_nu=float(coefficients[-1]),
        covariance=covariance,
    )


def elo_intervals(
    matches: Matches, anchor: str, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[Estimate, ...]:
    """Each player's Elo over the anchor's with its 95% interval, from resampled clusters."""
    strengths = fitted_strengths(matches, anchor)
    return mirrored_intervals(strengths, resampled_elo(matches, strengths, seed=seed, num_resamples=num_resamples))


def mirrored_intervals(strengths: Strengths, resampled: np.ndarray) -> tuple[Estimate, ...]:
    """From ``resampled_elo`` [R, P]: see departures 3 and 4."""
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    columns = strengths.elo, low, high, Z_95 * strengths.elo_errors
    return tuple(
        Estimate(value=elo, low=min(2 * elo - high, elo - half), high=max(2 * elo - low, elo + half))
        for elo, low, high, half in zip(*(column.tolist() for column in columns), strict=True)
    )


def resampled_elo(matches: Matches, strengths: Strengths, *, seed: int, num_resamples: int) -> np.ndarray:
    """[R, P]: the Elo of as many refits, each of as many clusters as there are, drawn with replacement.

    All start from ``strengths``, near which they end, and take their steps together.
    """
    index, sums = _index(matches, strengths.anchor), _Sums.of(matches)
    num_clusters = sums.matches.shape[0]
    weights = np.random.default_rng(seed).multinomial(
        num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_resamples
    )
    start = np.append(np.delete(strengths.log_strengths, index), (strengths.log_gamma, strengths.log_nu))
    likelihood = _Likelihood.of(sums, len(matches.players), index)
    coefficients = likelihood.maximum(sums.weighted(weights), np.tile(start, (num_resamples, 1)))
    elo: np.ndarray = ELO_PER_UNIT * np.insert(coefficients[:, :-2], index, 0, axis=1)
    return elo


def _index(matches: Matches, player: str) -> int:
    if player not in matches.players:
        raise ValueError(f"{player!r} is not among the players {', '.join(map(repr, matches.players))}")
    return matches.players.index(player)


def _apart(matches: Matches, anchor: int) -> list[str]:
    """The players that no chain of matches connects with the anchor."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num = len(matches.players)
    edges = coo_array((np.ones(len(matches)), (matches.slot_a, matches.slot_b)), shape=(num, num))
    labels = connected_components(edges, directed=False)[1]
    return [player for player, label in zip(matches.players, labels, strict=True) if label != labels[anchor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """What the likelihood needs of the matches, by cluster (or resample) and pair in slot order."""

    pairs: np.ndarray  #: [G, 2]
    matches: np.ndarray  #: [C, G]
    leads: np.ndarray  #: [C, G] (wins of A - wins of B) / 2
    ties: np.ndarray  #: [C, G]

    @classmethod
    def of(cls, matches: Matches) -> _Sums:
        pairs, pair = np.unique(np.stack([matches.slot_a, matches.slot_b], axis=1), axis=0, return_inverse=True)
        clusters, cluster = np.unique(matches.clusters, return_inverse=True)
        shape = len(clusters), len(pairs)
        cell = cluster * len(pairs) + pair.reshape(-1)

        def summed(values: np.ndarray) -> np.ndarray:
            return np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape)

        return cls(
            pairs=pairs,
            matches=summed(np.ones(len(matches))),
            leads=summed(matches.outcomes - 0.5),
            ties=summed((matches.outcomes == 0.5).astype(float)),
        )

    def weighted(self, weights: np.ndarray) -> _Sums:
        """By resample, whose weights of the clusters are [R, C]."""
        w = weights.astype(float)
        return _Sums(pairs=self.pairs, matches=w @ self.matches, leads=w @ self.leads, ties=w @ self.ties)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Likelihood:
    """The penalised log-likelihood of R sets of matches at once, in coefficients without the anchor's."""

    design: np.ndarray  #: [G, P]: d = design @ (theta, log gamma)
    penalty: np.ndarray  #: [P + 1, P + 1], a precision

    @classmethod
    def of(cls, sums: _Sums, num_players: int, anchor: int) -> _Likelihood:
        identity = np.eye(num_players)
        differences = np.delete(identity[sums.pairs[:, 0]] - identity[sums.pairs[:, 1]], anchor, axis=1)
        around_mean = identity - 1 / num_players
        penalty = np.eye(num_players + 1)
        penalty[:-2, :-2] = np.delete(np.delete(around_mean, anchor, axis=0), anchor, axis=1)
        return cls(
            design=np.hstack([differences, np.ones((len(differences), 1))]),
            penalty=penalty * (ELO_PER_UNIT / PENALTY_ELO) ** 2,
        )

    def maximum(self, sums: _Sums, coefficients: np.ndarray) -> np.ndarray:
        """[R, P + 1], by Newton's method from ``coefficients``.

        The logarithm's third derivative along a step is at most its second times the step's stretch, so that a step cut
        to MAX_STRETCH always gains, and no line search is needed.
        """
        for _ in range(MAX_NEWTON_STEPS):
            gradient, information = self.slopes(sums, coefficients)
            steps = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
            stretch = np.abs(steps[:, :-1] @ self.design.T).max(axis=1, initial=0) + np.abs(steps[:, -1])
            coefficients = coefficients + steps / np.maximum(1, stretch / MAX_STRETCH)[:, None]
            if np.abs(steps).max() < 1e-7:  # the next would be its square
                return coefficients
        raise ArithmeticError(f"strengths did not settle in {MAX_NEWTON_STEPS} steps")

    def slopes(self, sums: _Sums, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient [R, P + 1] and its negative derivative, the information [R, P + 1, P + 1]."""
        win, loss, tie = outcome_probs(coefficients[:, :-1] @ self.design.T, coefficients[:, -1:])
        lead, n = (win - loss) / 2, sums.matches
        by_difference = (sums.leads - n * lead) @ self.design
        by_tie = (sums.ties - n * tie).sum(axis=1, keepdims=True)
        gradient = np.hstack([by_difference, by_tie]) - coefficients @ self.penalty

        num_sets, num = coefficients.shape
        squares = np.einsum("gi,gj->gij", self.design, self.design).reshape(-1, (num - 1) ** 2)
        information = np.tile(self.penalty, (num_sets, 1, 1))
        information[:, :-1, :-1] += (n * ((win + loss) / 4 - lead**2) @ squares).reshape(num_sets, num - 1, num - 1)
        mixed = -(n * lead * tie) @ self.design
        information[:, :-1, -1] += mixed
        information[:, -1, :-1] += mixed
        information[:, -1, -1] += (n * tie * (1 - tie)).sum(axis=1)
        return gradient, information
