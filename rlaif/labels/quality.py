"""How good a set of labels is, with and without gold labels, and the gate before the preference model is fitted.

Source: position bias and its sign as in Lee et al. (RLAIF, arXiv 2309.00267), appendix B; calibration as in
``calibration``.

A *flip* is a vote whose winner changes with the order; it favours the slot that won twice. An order whose log-odds are
exactly 0 has no winner, so its vote is no flip. The *slot bias* is the mean of (l1 - l2)/2, log-odds toward slot A (l2
un-swapped). The *order correlation* is that of l1 and l2. Flips depend on the answers as much as on the judge: a biased
judge flips every pair that differs by less than its bias. The order correlation depends on the judge only: a constant
bias does not change it, and it is 0 where the answers do not matter. No measure depends on which answer is called
answer_1. Every measure has its 95% interval and its number of cases. Votes and labels of one prompt are not
independent, so that intervals are over prompts (``rlaif.statistics.clusters``). A vote takes some 100 bytes of memory.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlaif.config.schema import Gate
from rlaif.errors import GateError
from rlaif.records import Judgement, Preference, Status
from rlaif.statistics.calibration import PairCalibration
from rlaif.statistics.clusters import design_effect
from rlaif.statistics.estimates import Cases, CountedEstimate, mean_of, rate_of, sum_in_order
from rlaif.statistics.intervals import correlation_interval
from rlaif.statistics.logistic import sigmoid
from rlaif.tasks.labelling import Vote, votes_of

BIAS_BINS = 33  #: half a unit of log-odds each, from -8.25 to 8.25; the outermost also hold everything beyond
LENGTH_BINS = (1.1, 1.25, 1.5, 2.0, 4.0)  #: upper bounds of longer/shorter; the last bin is open


@dataclass(kw_only=True)
class VoteQuality:
    """Measures of single votes: all of them, or those by one principle. Every array has an element for each vote."""

    first: array[float] = field(default_factory=lambda: array("d"))  #: l1
    second: array[float] = field(default_factory=lambda: array("d"))  #: l2
    gaps: array[float] = field(default_factory=lambda: array("d"))  #: between the probabilities of both orders
    agreement: array[float] = field(default_factory=lambda: array("d"))  #: with the label that all votes give together
    first_right: array[float] = field(default_factory=lambda: array("d"))  #: by the gold label; NaN without one
    second_right: array[float] = field(default_factory=lambda: array("d"))
    clusters: array[int] = field(default_factory=lambda: array("q"))

    def add(self, vote: Vote, prob: float, better: bool | None, cluster: Hashable) -> None:
        """``prob``: the label's; ``better``: whether answer_1 is, by a gold label."""
        l1, l2 = vote
        self.first.append(l1)
        self.second.append(l2)
        self.gaps.append(abs(sigmoid(l1) - sigmoid(l2)))
        self.agreement.append(_rightness(l1 + l2, prob > 0.5) if prob != 0.5 else 0.5)
        self.first_right.append(math.nan if better is None else _rightness(l1, better))
        self.second_right.append(math.nan if better is None else _rightness(l2, better))
        self.clusters.append(hash(cluster))

    def measures(self) -> dict[str, CountedEstimate]:
        """By name; those without cases are left out."""
        l1, l2, clusters = np.array(self.first), np.array(self.second), np.array(self.clusters)
        flips = np.sign(l1) * np.sign(l2) < 0
        estimates = {
            "flip_rate": rate_of(flips.astype(float), clusters),
            "flips_to_slot_a": rate_of((l1 > 0)[flips].astype(float), clusters[flips]),
            "order_gap": mean_of(np.array(self.gaps), clusters),
            "order_correlation": order_correlation(l1, l2, clusters),
            "slot_bias": mean_of((l1 - l2) / 2, clusters),
            "agreement": rate_of(np.array(self.agreement), clusters),
            "gold_accuracy_first": _rate_of_known(np.array(self.first_right), clusters),
            "gold_accuracy_second": _rate_of_known(np.array(self.second_right), clusters),
        }
        return {name: estimate for name, estimate in estimates.items() if estimate.num}


def order_correlation(l1: np.ndarray, l2: np.ndarray, clusters: np.ndarray) -> CountedEstimate:
    """The correlation of ``l1`` and ``l2`` [N] over votes and their mirror images, so that it does not matter which
    answer is called the first. With q = (l1 + l2)/2 and b = (l1 - l2)/2 it is (E[q^2] - Var[b]) / (E[q^2] + Var[b]).

    Its design effect is that of the mean of its influence function. With ``num`` 0 when there are fewer than two votes,
    or all are alike.
    """
    q, b, num = (l1 + l2) / 2, (l1 - l2) / 2, len(l1)
    common = sum_in_order(q * q) / max(1, num)
    bias = sum_in_order(b)
    noise = max(0.0, sum_in_order(b * b) - bias**2 / max(1, num)) / max(1, num - 1)
    if num < 2 or common + noise == 0:
        return CountedEstimate(value=0.0, low=-1.0, high=1.0, num=0)
    value = (common - noise) / (common + noise)
    influence = noise * (q * q - common) - common * ((b - bias / num) ** 2 - noise)
    low, high = correlation_interval(value, num / design_effect(influence, clusters))
    return CountedEstimate(value=value, low=low, high=high, num=num)


def _rate_of_known(hits: np.ndarray, clusters: np.ndarray) -> CountedEstimate:
    known = ~np.isnan(hits)
    return rate_of(hits[known], clusters[known])


@dataclass(kw_only=True)
class LabelQuality:
    """Measures over preferences, added one by one. Labels of equal prompts belong together, and so do their votes."""

    num_by_status: dict[str, int] = field(default_factory=dict)
    num_failed: int = 0
    votes: VoteQuality = field(default_factory=VoteQuality)
    by_principle: dict[str, VoteQuality] = field(default_factory=dict)
    ties: Cases = field(default_factory=Cases)
    unusable: Cases = field(default_factory=Cases)
    longer_preferred: Cases = field(default_factory=Cases)
    gold_accuracy: Cases = field(default_factory=Cases)
    calibration: PairCalibration = field(default_factory=PairCalibration)
    bias_histogram: list[int] = field(default_factory=lambda: [0] * BIAS_BINS)
    length_bins: list[Cases] = field(default_factory=lambda: [Cases() for _ in range(len(LENGTH_BINS) + 1)])

    def add(self, label: Preference) -> None:
        self.num_by_status[label.status] = self.num_by_status.get(label.status, 0) + 1
        self.ties.add(label.status == Status.TIE, label.prompt)
        self.unusable.add(label.status not in (Status.OK, Status.TIE), label.prompt)
        if label.prob is None:
            return
        self._add_length(label, label.prob)
        better = _gold(label)
        if better is not None:
            self.gold_accuracy.add(_rightness(label.prob - 0.5, better), label.prompt)
            self.calibration.add(label.prob, better)
        for principle_id, judgements in _by_principle(label.judgements).items():
            of_principle = self.by_principle.setdefault(principle_id, VoteQuality())
            for vote in votes_of(judgements):
                self.votes.add(vote, label.prob, better, label.prompt)
                of_principle.add(vote, label.prob, better, label.prompt)
                bin = round(vote[0] - vote[1]) + BIAS_BINS // 2
                self.bias_histogram[max(0, min(BIAS_BINS - 1, bin))] += 1

    def add_failure(self, number: int) -> None:
        """The ``number``-th pair that the labeller failed on, which has no label at all."""
        self.num_failed += 1
        self.unusable.add(True, ("failure", number))

    def _add_length(self, label: Preference, prob: float) -> None:
        """Lengths are in characters: answers from elsewhere have no token ids."""
        lengths = len(label.answer_1), len(label.answer_2)
        if lengths[0] == lengths[1]:
            return
        longer = prob if lengths[0] > lengths[1] else 1 - prob
        self.longer_preferred.add(longer, label.prompt)
        ratio = max(lengths) / max(1, min(lengths))
        self.length_bins[sum(ratio > bound for bound in LENGTH_BINS)].add(longer, label.prompt)

    @property
    def num_labels(self) -> int:
        return sum(self.num_by_status.values())

    def measures(self) -> dict[str, CountedEstimate]:
        """Overall, by name; those without cases are left out, except shares of all labels."""
        measures = {**self.votes.measures(), "longer_preferred": self.longer_preferred.rate()}
        measures |= {"tie_rate": self.ties.rate(), "invalid_rate": self.unusable.rate()}
        if self.gold_accuracy.num:
            measures["gold_accuracy"] = self.gold_accuracy.rate()
        return measures

    def metrics(self) -> dict[str, float]:
        """``label/quality/...``: the values, without intervals."""
        metrics = {f"label/quality/{name}": measure.value for name, measure in self.measures().items()}
        if self.gold_accuracy.num:
            metrics["label/quality/gold_calibration_error"] = self.calibration.error
            metrics["label/quality/gold_brier"] = self.calibration.brier
        return metrics

    def summary(self) -> dict[str, Any]:
        """The content of ``label_quality.json``: everything, with intervals, overall and by principle."""
        return {
            "num_labels": self.num_labels,
            "num_quarantined": self.num_failed,
            "statuses": dict(sorted(self.num_by_status.items())),
            "overall": _plain(self.measures()),
            "by_principle": {p: _plain(q.measures()) for p, q in sorted(self.by_principle.items())},
            "calibration": self.calibration.summary() if self.gold_accuracy.num else None,
            "slot_bias_histogram": {
                "centres": [(i - BIAS_BINS // 2) / 2 for i in range(BIAS_BINS)],
                "counts": self.bias_histogram,
            },
            "longer_preferred_by_ratio": {
                "upper_bounds": [*LENGTH_BINS, None],
                "measures": [vars(cases.rate()) for cases in self.length_bins],
            },
        }


def _plain(measures: Mapping[str, CountedEstimate]) -> dict[str, dict[str, float]]:
    return {name: vars(measure) for name, measure in measures.items()}


def _by_principle(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    by_principle: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_principle.setdefault(judgement.principle_id, []).append(judgement)
    return by_principle


def _gold(label: Preference) -> bool | None:
    """Whether answer_1 is better by the gold label; None without one, when it is a tie, or when the answers are the
    same: then neither can be better."""
    undecided = label.gold is None or label.gold == 0.5 or label.answer_1 == label.answer_2
    return None if undecided else bool(label.gold and label.gold > 0.5)


def _rightness(leaning: float, first_is_better: bool) -> float:
    """1 if ``leaning`` (toward answer_1 when positive) is right, 0.5 if it is 0."""
    return 0.5 if leaning == 0 else float((leaning > 0) == first_is_better)


def measure(labels: Iterable[Preference], num_failed: int = 0) -> LabelQuality:
    """``num_failed``: pairs that the labeller failed on, which count as unusable."""
    quality = LabelQuality()
    for label in labels:
        quality.add(label)
    for number in range(num_failed):
        quality.add_failure(number)
    return quality


def check_gate(metrics: Mapping[str, float], gate: Gate) -> None:
    """Raise GateError naming every missed limit that is not overridden."""
    misses = {
        "flip_rate": _miss(metrics, "flip_rate", "max", gate.max_flip_rate),
        "order_correlation": _miss(metrics, "order_correlation", "min", gate.min_order_correlation),
        "invalid_rate": _miss(metrics, "invalid_rate", "max", gate.max_invalid_rate),
        "gold_accuracy": _miss(metrics, "gold_accuracy", "min", gate.min_gold_accuracy),
    }
    failures = {name: line for name, line in misses.items() if line and name not in gate.override}
    if failures:
        raise GateError(
            "the labels are not good enough to fit a preference model: "
            + "; ".join(failures.values())
            + "; improve the labeller, or pass by name with labelling.gate.override=["
            + ", ".join(failures)
            + "]"
        )


def _miss(metrics: Mapping[str, float], name: str, side: str, limit: float) -> str | None:
    value = metrics.get(f"label/quality/{name}")
    if value is None or (value <= limit if side == "max" else value >= limit):
        return None
    return f"{name} is {value:.3f}, {'above' if side == 'max' else 'below'} labelling.gate.{side}_{name}={limit}"
