"""Are soft labels worth keeping? With a calibrated judge, is a preference model (PM) fitted on its probabilities
better calibrated than one fitted on its verdicts?

    python -m benchmarks.soft_labels --json benchmarks/results/soft_labels.json

For each seed, the miniature's judge labels pairs about red-team requests in both orders. Two PMs are fitted on these
pairs with identical settings, the quickstart's: ``soft`` on P(first better), ``hard`` on P > 0.5. Both are measured
against the truth on pairs about requests that no model was trained on, by the expected calibration error (ECE) of
sigmoid(r1 - r2), with every pair counted both ways.

How to read it: ``hard_minus_soft`` is the paired difference of the two errors with its 95% interval (Student's t over
the seeds); above zero, soft labels are better. A PM's ``temperature`` is the number by which its score differences
should be divided: below 1 it is underconfident, above 1 overconfident. The question assumes a calibrated judge, so the
judge's own ECE on the training pairs is measured first. If it is above 0.05, the judge's log-odds are divided by a
temperature fitted on separate pairs, and the result names the judge ``judge + temperature``. ``judge_heldout`` is what
a perfect copy of the judge would score on the held-out pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.intervals import paired_interval
from benchmarks.laboratory import Laboratory
from benchmarks.machine import publish
from rlaif.records import Preference
from rlaif.statistics.calibration import both_ways, brier_score, expected_calibration_error, fitted_temperature

LIMIT = 0.05  #: the judge's ECE up to which it counts as calibrated
FIGURES = ("ece", "brier", "accuracy", "temperature")


@dataclass(frozen=True, kw_only=True)
class LabelledPairs:
    """Labels with P(answer_1 better) and whether it truly is, by id."""

    labels: Sequence[Preference]
    probs: Mapping[str, float]
    truth: Mapping[str, float]

    def softened(self, temperature: float) -> LabelledPairs:
        probs = {id: float(1 / (1 + np.exp(-_logit(p) / temperature))) for id, p in self.probs.items()}
        return LabelledPairs(labels=self.labels, probs=probs, truth=self.truth)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        ids = list(self.probs)
        return np.array([self.probs[id] for id in ids]), np.array([self.truth[id] for id in ids])


def _logit(prob: float | np.ndarray) -> Any:
    return np.log(prob) - np.log1p(-prob)


def label_pairs(laboratory: Laboratory, name: str, num: int, *, heldout: bool = False) -> LabelledPairs:
    labels = laboratory.labels(laboratory.comparisons(name, "red_team", num, heldout=heldout))
    probs = {label.id: label.prob for label in labels if label.prob is not None}
    return LabelledPairs(labels=labels, probs=probs, truth=laboratory.truth(labels))


def quality(sets: Sequence[LabelledPairs]) -> dict[str, float]:
    """The judge's accuracy and calibration."""
    probs, truth = (np.concatenate(parts) for parts in zip(*(part.arrays() for part in sets), strict=True))
    return {
        "ece": expected_calibration_error(both_ways(probs), both_ways(truth)),
        "brier": brier_score(probs, truth),
        "accuracy": float(((probs > 0.5) == (truth > 0.5)).mean()),
        "num_pairs": len(probs),
    }


def judge_temperature(laboratory: Laboratory, num: int) -> float:
    probs, truth = label_pairs(laboratory, "calibration", num).arrays()
    return fitted_temperature(_logit(probs), truth)


def fits(laboratory: Laboratory, training: LabelledPairs, heldout: LabelledPairs, seed: int) -> dict[str, Any]:
    """Fit a soft and a hard PM on the same pairs in the same order, starting from the same head."""
    truth = laboratory.rows(heldout.labels, heldout.truth)
    targets = {"soft": training.probs, "hard": {id: float(prob > 0.5) for id, prob in training.probs.items()}}
    figures: dict[str, Any] = {"seed": seed}
    for name, probs in targets.items():
        metrics = laboratory.fit(laboratory.rows(training.labels, probs), truth, seed)
        figures[name] = {figure: metrics[figure] for figure in FIGURES}
    return figures


def experiment(laboratory: Laboratory, num_seeds: int, num_pairs: int, num_heldout: int) -> dict[str, Any]:
    raw = [label_pairs(laboratory, f"training-{seed}", num_pairs) for seed in range(num_seeds)]
    before = quality(raw)
    temperature = judge_temperature(laboratory, num_pairs) if before["ece"] > LIMIT else 1.0
    training = [part.softened(temperature) for part in raw]
    heldout = [
        label_pairs(laboratory, f"heldout-{seed}", num_heldout, heldout=True).softened(temperature)
        for seed in range(num_seeds)
    ]
    seeds = []
    for seed in range(num_seeds):
        seeds.append(fits(laboratory, training[seed], heldout[seed], seed))
        print(json.dumps(seeds[-1]), flush=True)
    return {
        "judge": "judge alone" if temperature == 1 else "judge + temperature",
        "judge_temperature": temperature,
        "judge_before": before,
        "judge_training": quality(training),
        "judge_heldout": quality(heldout),
        **{
            f"{name}_{figure}": float(np.mean([seed[name][figure] for seed in seeds]))
            for name in ("soft", "hard")
            for figure in FIGURES
        },
        "hard_minus_soft": paired_interval([seed["hard"]["ece"] - seed["soft"]["ece"] for seed in seeds]),
        "seeds": seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=1200, help="training pairs a seed; default: the quickstart's")
    parser.add_argument("--heldout", type=int, default=1000)
    arguments = parser.parse_args()
    started, laboratory = time.monotonic(), Laboratory()
    result = {
        "num_pairs": arguments.pairs,
        "num_heldout": arguments.heldout,
        "fit": laboratory.config.preference_model.fit.model_dump(),
        **experiment(laboratory, arguments.seeds, arguments.pairs, arguments.heldout),
        "seconds": round(time.monotonic() - started, 1),
    }
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
