"""Do the intervals of players' strengths hold the truth, and do pairs chosen by information save judge calls?

    python -m benchmarks.matches --json benchmarks/results/matches.json

Simulated matches of players of known strength: snapshots along a training, which gains fast at first and slowly later,
anchored at the first. The judge favours slot A, some matches end in ties, and every pair is judged in both orders. A
prompt suits some players better than others, so that outcomes on one prompt are alike; yet each match by itself has
exactly the outcome's probabilities of the model (a Gaussian copula), and the known strengths are what a fit must find.

``coverage``: how many of the 95% intervals hold the truth, by player? A trial has ``num_prompts`` prompts, each with
``pairs_per_prompt`` random pairs. Goal: 93 of 100 for every player, over all trials. These come in blocks of 100, each
with a seed of its own, and ``worst_player_by_seed`` says how many of a block the worst player had: chance alone brings
a perfect interval below 93 for one player in eight, so that single blocks often miss the goal. For comparison:
``percentile``, the plain percentiles of the same resamples, and ``independent``, which takes all matches as
independent.

``pairing``: judge calls until the intervals are at most ``width_elo`` wide from end to end, on the mean over players
and for the widest, when pairs are chosen by information, as a share of the calls that random pairs need in the same
trial (``share``, the median over the trials). Intervals are looked at after each batch of 25 pairs. Goal: at most 0.6
for ``snapshots``. ``narrow`` has fewer players, nearer to each other; those of ``equal`` hardly differ, where knowing
them cannot help and only the anchor's part in every difference can. ``coverage`` is that of the chosen pairs' intervals
when both widths are reached, on the mean over players and trials: to stop at a width must not spoil them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.machine import publish
from rlaif.statistics.bradley_terry import (
    ELO_PER_UNIT,
    Matches,
    elo_intervals,
    fitted_strengths,
    mirrored_intervals,
    outcome_probs,
    resampled_elo,
    strengths_so_far,
)
from rlaif.statistics.estimates import Estimate
from rlaif.statistics.intervals import Z_95
from rlaif.statistics.pairing import next_pairs

LOG_GAMMA, LOG_NU = 0.4, float(np.log(0.3))  #: .6 of wins between equals go to slot A, and .13 of matches are ties
ALIKE = 0.5  #: the share of a match's luck that is the prompt's
PAIRS_PER_PROMPT = 5
BATCH = 25  #: pairs
NUM_RESAMPLES = 400  #: for a width

Chooser = Callable[[Matches, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges players of known Elo; ``suits`` [prompts, players] is whom a prompt suits."""

    elo: np.ndarray
    suits: np.ndarray
    rng: np.random.Generator

    @property
    def players(self) -> tuple[str, ...]:
        return tuple(f"snapshot-{number}" for number in range(len(self.elo)))

    def both_orders(self, pairs: np.ndarray, prompts: np.ndarray) -> Matches:
        a, b, prompts = np.append(pairs[:, 0], pairs[:, 1]), np.append(pairs[:, 1], pairs[:, 0]), np.tile(prompts, 2)
        _, loss, tie = outcome_probs((self.elo[a] - self.elo[b]) / ELO_PER_UNIT + LOG_GAMMA, LOG_NU)
        luck = np.sqrt(ALIKE / 2) * (self.suits[prompts, a] - self.suits[prompts, b])
        luck += np.sqrt(1 - ALIKE) * self.rng.normal(size=len(a))
        rank = norm.cdf(luck)
        outcomes = np.select([rank < loss, rank < loss + tie], [0.0, 0.5], 1.0)
        return Matches(players=self.players, slot_a=a, slot_b=b, outcomes=outcomes, clusters=prompts)


def open_judge(elo: np.ndarray, num_prompts: int, rng: np.random.Generator) -> Judge:
    return Judge(elo=elo, suits=rng.normal(size=(num_prompts, len(elo))), rng=rng)


def snapshots(num: int, spread: float) -> np.ndarray:
    """Elo along a training whose rate of gain falls to a ninth of what it was."""
    gained = -np.expm1(-np.log(9) * np.linspace(0, 1, num))
    return spread * gained / gained[-1]


def joined(before: Matches, after: Matches) -> Matches:
    return Matches(
        players=before.players,
        slot_a=np.append(before.slot_a, after.slot_a),
        slot_b=np.append(before.slot_b, after.slot_b),
        outcomes=np.append(before.outcomes, after.outcomes),
        clusters=np.append(before.clusters, after.clusters),
    )


def all_pairs(num_players: int) -> np.ndarray:
    return np.stack(np.triu_indices(num_players, 1), axis=1)


# ------------------------------------------------------------------------------------------------ coverage


def coverage(elo: np.ndarray, num_prompts: int, num_seeds: int, num_trials: int) -> dict[str, Any]:
    trials = [[held_by(elo, num_prompts, seed, trial) for trial in range(num_trials)] for seed in range(num_seeds)]
    held = np.array(trials)[..., 1:]  # [seeds, trials, ways, players]: the anchor's is always held
    result: dict[str, Any] = {
        "elo": elo.round(1).tolist(),
        "num_prompts": num_prompts,
        "pairs_per_prompt": PAIRS_PER_PROMPT,
        "num_seeds": num_seeds,
        "num_trials": num_trials,
    }
    for n, way in enumerate(("intervals", "percentile", "independent")):
        by_player = held[:, :, n].mean(axis=(0, 1))
        result[way] = {
            "worst_player": round(float(by_player.min()), 4),
            "mean": round(float(by_player.mean()), 4),
            "by_player": by_player.round(4).tolist(),
            "worst_player_by_seed": held[:, :, n].sum(axis=1).min(axis=1).tolist(),
        }
    return result


def held_by(elo: np.ndarray, num_prompts: int, seed: int, trial: int) -> np.ndarray:
    """[ways, P]: whether each player's Elo is inside its interval."""
    rng = np.random.default_rng([seed, trial])
    judge, every = open_judge(elo, num_prompts, rng), all_pairs(len(elo))
    pairs = [rng.choice(every, PAIRS_PER_PROMPT, replace=False) for _ in range(num_prompts)]
    matches = judge.both_orders(np.concatenate(pairs), np.repeat(np.arange(num_prompts), PAIRS_PER_PROMPT))
    strengths = fitted_strengths(matches, matches.players[0])
    resampled = resampled_elo(matches, strengths, seed=trial, num_resamples=1000)
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    return np.array(
        [
            holds(elo, mirrored_intervals(strengths, resampled)),
            (low <= elo) & (elo <= high),
            abs(strengths.elo - elo) <= Z_95 * strengths.elo_errors,
        ]
    )


def holds(elo: np.ndarray, intervals: Sequence[Estimate]) -> np.ndarray:
    return np.array([interval.low <= truth <= interval.high for truth, interval in zip(elo, intervals, strict=True)])


# ------------------------------------------------------------------------------------------------- savings


def by_information(matches: Matches, num: int, rng: np.random.Generator) -> np.ndarray:
    return next_pairs(strengths_so_far(matches, matches.players[0]), num)


def at_random(matches: Matches, num: int, rng: np.random.Generator) -> np.ndarray:
    chosen: np.ndarray = rng.choice(all_pairs(len(matches.players)), num)
    return chosen


def rounds(judge: Judge, choose: Chooser) -> Iterator[Matches]:
    """The matches after each batch, without end. A pair's matches go through the prompts in an order of its own."""
    num_prompts, num_players = judge.suits.shape
    orders = judge.rng.permuted(np.tile(np.arange(num_prompts), (num_players, num_players, 1)), axis=2)
    used = np.zeros((num_players, num_players), dtype=np.int64)
    matches = Matches.none(judge.players)
    while True:
        pairs = choose(matches, BATCH, judge.rng)
        prompts = np.empty(len(pairs), dtype=np.int64)
        for n, (i, j) in enumerate(pairs):
            prompts[n] = orders[i, j, used[i, j] % num_prompts]
            used[i, j] += 1
        matches = joined(matches, judge.both_orders(pairs, prompts))
        yield matches


def widths(intervals: Sequence[Estimate]) -> np.ndarray:
    """Their mean and the widest, without the anchor's."""
    each = np.array([interval.high - interval.low for interval in intervals[1:]])
    return np.array([each.mean(), each.max()])


def calls_until(judge: Judge, choose: Chooser, target: float, seed: int) -> tuple[np.ndarray, Matches]:
    """[2]: judge calls until the mean width, and the widest, are at most ``target``; and all matches till then."""
    calls = np.zeros(2)
    for matches in rounds(judge, choose):
        # No interval is narrower than that of independent matches, which costs nothing to know.
        strengths = strengths_so_far(matches, matches.players[0])
        if 2 * Z_95 * strengths.elo_errors[1:].mean() > target:
            continue
        reached = widths(elo_intervals(matches, matches.players[0], seed=seed, num_resamples=NUM_RESAMPLES)) <= target
        calls[reached & (calls == 0)] = len(matches)
        if calls.all():
            return calls, matches
    raise AssertionError("rounds never end")


def savings(elo: np.ndarray, target: float, num_prompts: int, num_trials: int) -> dict[str, Any]:
    calls: dict[str, list[np.ndarray]] = {"random": [], "chosen": []}
    held = []
    for trial in range(num_trials):
        judge = open_judge(elo, num_prompts, np.random.default_rng([trial, len(elo)]))
        calls["random"].append(calls_until(judge, at_random, target, trial)[0])
        chosen, matches = calls_until(judge, by_information, target, trial)
        calls["chosen"].append(chosen)
        held.append(holds(elo, elo_intervals(matches, matches.players[0], seed=trial))[1:])
    shares = np.array(calls["chosen"]) / np.array(calls["random"])
    result: dict[str, Any] = {
        "elo": elo.round(1).tolist(),
        "num_prompts": num_prompts,
        "num_trials": num_trials,
        "width_elo": target,
        "coverage": round(float(np.mean(held)), 3),
    }
    for n, width in enumerate(("mean_width", "widest")):
        result[width] = {
            "share": round(float(np.median(shares[:, n])), 3),
            "quartiles": np.quantile(shares[:, n], (0.25, 0.75)).round(3).tolist(),
            **{f"{way}_calls": float(np.median(np.array(each)[:, n])) for way, each in calls.items()},
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=10, help="blocks of trials for the coverage")
    parser.add_argument("--trials", type=int, default=100, help="in each of them")
    parser.add_argument("--prompts", type=int, default=250)
    parser.add_argument("--pairing-trials", type=int, default=40)
    arguments = parser.parse_args()
    started = time.monotonic()
    cases = {
        "snapshots": (snapshots(12, 1000), 200.0),
        "narrow": (snapshots(8, 800), 200.0),
        "equal": (np.linspace(0, 50, 10), 125.0),
    }
    result = {
        "log_gamma": LOG_GAMMA,
        "log_nu": round(LOG_NU, 4),
        "alike": ALIKE,
        "coverage": coverage(snapshots(10, 1000), arguments.prompts, arguments.seeds, arguments.trials),
        "pairing": {
            name: savings(elo, width, arguments.prompts, arguments.pairing_trials)
            for name, (elo, width) in cases.items()
        },
        "seconds": round(time.monotonic() - started, 1),
    }
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
