"""Which players should meet next: the pairs whose matches say most about the strengths that are reported.

What is reported are the players' strengths less the anchor's, with their intervals. The criterion is the sum of the
fourth powers of their variances: between A-optimality, the sum of the variances themselves, which leaves those who are
hard to measure with wide intervals, and the largest variance alone, for which all other players would pay.

A pair chosen once is judged in both slot orders, which costs two calls of the judge and cancels the slot's advantage.
With Sigma the covariance of the strengths, x = e_i - e_j, and w the information about x' theta in the two matches,
meeting takes

    w (Sigma x)^2 / (1 + w x' Sigma x)

from the variances (Sherman and Morrison). A batch is chosen greedily, each pair as if those before it had been judged.
A match says most between equals, and something about all who are compared through them; a player of whom little is
known is met even by those who seem unequal. Without any match, the penalty's covariance stands in for knowledge: the
first P - 1 pairs connect all players.

Shapes: P players; a batch of K pairs is [K, 2], of indices, the lower one first. Pairs may occur more than once, on
different prompts.
Sources: Kiefer (JRSS B 21, 1959) for criteria of designs; Fedorov (Theory of Optimal Experiments, 1972) for adding one
observation at a time.

Departures from the sources:
1. Ties and the slot's advantage count as known: all matches tell of them, and both orders together say almost nothing
   about a strength that depends on them.
2. Two matches on one prompt count as independent. They say less, but so do those of any other pair.
"""

from __future__ import annotations

import numpy as np

from rlaif.statistics.bradley_terry import Strengths, outcome_probs

POWER = 4  #: of the variances that are summed


def next_pairs(strengths: Strengths, num_pairs: int) -> np.ndarray:
    """[K, 2]: the next ``num_pairs`` pairs, each to be judged in both orders."""
    num_players = len(strengths.players)
    pairs = np.stack(np.triu_indices(num_players, 1), axis=1)
    contrasts = np.eye(num_players)[pairs[:, 0]] - np.eye(num_players)[pairs[:, 1]]
    covariance = strengths.covariance[:num_players, :num_players].copy()
    differences = contrasts @ strengths.log_strengths
    information = match_information(differences + strengths.log_gamma, strengths.log_nu)
    information += match_information(differences - strengths.log_gamma, strengths.log_nu)
    chosen = np.empty(num_pairs, dtype=np.int64)
    for n in range(num_pairs):
        moved = contrasts @ covariance  # [pairs, P]
        scale = information / (1 + information * (moved * contrasts).sum(axis=1))
        variances = np.diag(covariance) - scale[:, None] * moved**2
        best = chosen[n] = np.argmin((variances**POWER).sum(axis=1))
        covariance -= scale[best] * np.outer(moved[best], moved[best])
    return pairs[chosen]


def match_information(difference: np.ndarray, log_nu: float) -> np.ndarray:
    """Fisher's, of one match about d: the variance of its outcome as 1, 0 or 0.5."""
    win, loss, _ = outcome_probs(difference, log_nu)
    variance: np.ndarray = (win + loss) / 4 - (win - loss) ** 2 / 4
    return variance
