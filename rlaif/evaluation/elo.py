"""Ratings from pairwise matches: the Elo scale and a Bradley-Terry fit by maximum likelihood.

A rating difference of 400 means odds of 10 to 1, so one unit of preference score (a log-odds) is 400/ln 10 Elo.
Sources: Bradley and Terry (Biometrika 39, 1952); the scale as in arXiv 2204.05862, section 3.

Departures from the sources: 1. a player who won or lost every match has no finite maximum-likelihood rating, so half
a win and half a loss against the anchor are added for everyone (a weak prior towards the anchor's rating).
"""

from __future__ import annotations

import math

import numpy as np

ELO_PER_NAT = 400 / math.log(10)  #: 173.718
PRIOR_MATCHES = 1.0


def expected_score(difference: float) -> float:
    """P(win) of a player rated ``difference`` Elo above the other."""
    return 1 / (1 + 10 ** (-difference / 400))


def fit_elo(wins: np.ndarray, anchor: int = 0) -> np.ndarray:
    """Elo ratings [P] of P players from ``wins`` [P, P], where ``wins[i, j]`` is how often i beat j.

    Wins may be fractional (a soft label counts as p and 1 - p). The ``anchor`` is rated 0.
    """
    from scipy.optimize import minimize

    counts = np.asarray(wins, dtype=float) + _prior(len(wins), anchor)
    free = np.arange(len(wins)) != anchor

    def negative_log_likelihood(ratings: np.ndarray) -> tuple[float, np.ndarray]:
        r = np.zeros(len(wins))
        r[free] = ratings
        d = r[:, None] - r[None, :]
        loss = (counts * np.logaddexp(0, -d)).sum()
        pull = counts / (1 + np.exp(d))  # d loss / d d, negated
        return float(loss), (pull.sum(0) - pull.sum(1))[free]

    fit = minimize(negative_log_likelihood, np.zeros(free.sum()), jac=True, method="BFGS")
    ratings = np.zeros(len(wins))
    ratings[free] = fit.x * ELO_PER_NAT
    return ratings


def _prior(num_players: int, anchor: int) -> np.ndarray:
    prior = np.zeros((num_players, num_players))
    prior[anchor, :] = prior[:, anchor] = PRIOR_MATCHES / 2
    prior[anchor, anchor] = 0
    return prior
