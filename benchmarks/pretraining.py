"""Does pretraining on voted answers (PMP) save labels? The preference model's (PM's) learning curve with and without.

    python -m benchmarks.pretraining --json benchmarks/results/pretraining.json --plot pretraining.svg

A PM is fitted on 25 to 800 labelled pairs of the miniature, half of them AI harmlessness labels and half human
helpfulness pairs, as the quickstart mixes them: alone, or after one pass over the miniature's votes. Its accuracy is
measured against the truth on pairs about requests that no model was trained on, half of each axis. Learning rates and
batch size are the quickstart's. Few labels are gone through more often, so that every fit has at least MIN_STEPS
optimizer steps: otherwise few labels would also mean a model that was hardly trained, and pretraining would be praised
for its steps.

How to read it: ``curves`` has the mean accuracy over seeds by number of labels, of both axes together and of each;
``gain`` the paired difference (pretrained minus alone) with its 95% interval (Student's t over the seeds);
``labels_needed`` where each curve first reaches an accuracy, interpolated on the logarithm of the number of labels: 25
stands for "at most 25", null for "not with 800".

Look at the axes apart: the votes are about benign questions alone, where helping beats declining, and red-team pairs
have it the other way round. ``votes_alone`` is, for each seed, the accuracy after the pass over the votes and before
any label: below 0.5 on an axis, the votes taught the opposite and the labels have to undo it. Human pairs all hold a
helpful answer, which a share of the held-out helpful pairs does not: of those only the votes can teach anything.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.intervals import paired_interval
from benchmarks.laboratory import Laboratory
from benchmarks.machine import publish
from rlaif.constitution import seed_from
from rlaif.data.pairs import read_pairs
from rlaif.data.votes import read_votes
from rlaif.evaluation import plots
from rlaif.training.batches import Row

NUMS_LABELS = (25, 50, 100, 200, 400, 800)
MIN_STEPS = 40
TARGETS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
WAYS = ("alone", "pretrained")
FIGURES = {"both": "accuracy", "harmless": "accuracy_harmless", "helpful": "accuracy_helpful"}

Curve = Sequence[float]  #: accuracy for each of NUMS_LABELS


@dataclass(frozen=True, kw_only=True)
class Material:
    """Rows to learn from; a fit takes ``ai`` and ``human`` ones by turns."""

    votes: Sequence[Row]
    ai: Sequence[Row]
    human: Sequence[Row]

    def labelled(self, num: int) -> list[Row]:
        return [row for pair in zip(self.ai, self.human, strict=True) for row in pair][:num]


def material(laboratory: Laboratory, seed: int) -> Material:
    """The pairs of one seed; the votes are the same for all."""
    num = max(NUMS_LABELS) // 2
    labels = laboratory.labels(laboratory.comparisons(f"pretraining-{seed}", "red_team", num))
    human = list(read_pairs(str(laboratory.paths.path("helpful_pairs")), print))
    chosen = Random(seed_from("pretraining", seed)).sample(human, num)
    votes = read_votes(str(laboratory.paths.path("votes")), print)
    return Material(
        votes=[dict(row) for row in laboratory.builder.from_votes(votes)],
        ai=laboratory.rows(labels, {label.id: label.prob for label in labels if label.prob is not None}),
        human=[dict(row) for row in laboratory.builder.from_pairs(chosen)],
    )


def heldout_rows(laboratory: Laboratory, num: int) -> list[Row]:
    """``num`` pairs of each axis, with the truth as their labels."""
    pairs = [p for axis in ("red_team", "helpful") for p in laboratory.comparisons("test", axis, num, heldout=True)]
    labels = laboratory.labels(pairs)
    return laboratory.rows(labels, laboratory.truth(labels))


def curves(laboratory: Laboratory, known: Material, heldout: Sequence[Row], seed: int) -> dict[str, dict[str, Curve]]:
    """Way -> axis -> accuracies."""
    settings = laboratory.config.preference_model.fit
    found: dict[str, dict[str, list[float]]] = {way: {axis: [] for axis in FIGURES} for way in WAYS}
    for num in NUMS_LABELS:
        steps = math.ceil(num / settings.batch_size)  # of one epoch
        epochs = max(settings.epochs, math.ceil(MIN_STEPS / steps))
        for way in WAYS:
            votes = known.votes if way == "pretrained" else None
            metrics = laboratory.fit(known.labelled(num), heldout, seed, epochs=epochs, pretraining=votes)
            for axis, figure in FIGURES.items():
                found[way][axis].append(metrics[f"preference/heldout/{figure}"])
            print(f"seed {seed}, {num} labels, {way}: {metrics['preference/heldout/accuracy']:.3f}", flush=True)
    return found


def votes_alone(laboratory: Laboratory, votes: Sequence[Row], heldout: Sequence[Row], seed: int) -> dict[str, float]:
    """Accuracies after the pass over the votes, before any label: a fit on them with the pretraining's settings."""
    settings = laboratory.config.preference_model
    assert settings.pretraining == settings.fit.model_copy(update={"epochs": settings.pretraining.epochs})
    metrics = laboratory.fit(votes, heldout, seed, epochs=settings.pretraining.epochs)
    return {axis: metrics[f"preference/heldout/{figure}"] for axis, figure in FIGURES.items()}


def labels_needed(curve: Curve, target: float) -> float | None:
    """Where the curve first reaches ``target``, between two points on the logarithm of the labels."""
    points = list(zip(np.log(NUMS_LABELS), curve, strict=True))
    if points[0][1] >= target:
        return float(NUMS_LABELS[0])
    for (left, low), (right, high) in pairwise(points):
        if low < target <= high:
            return float(np.exp(left + (right - left) * (target - low) / (high - low)))
    return None


def summary(seeds: Sequence[Mapping[str, Mapping[str, Curve]]]) -> dict[str, Any]:
    means = {
        way: {axis: np.mean([seed[way][axis] for seed in seeds], axis=0).tolist() for axis in FIGURES} for way in WAYS
    }
    gains = {
        axis: [
            paired_interval([seed["pretrained"][axis][i] - seed["alone"][axis][i] for seed in seeds])
            for i in range(len(NUMS_LABELS))
        ]
        for axis in FIGURES
    }
    needed = {
        axis: {str(target): {way: labels_needed(means[way][axis], target) for way in WAYS} for target in TARGETS}
        for axis in FIGURES
    }
    return {"num_labels": NUMS_LABELS, "curves": means, "gain": gains, "labels_needed": needed, "seeds": seeds}


def figure(found: Mapping[str, Any]) -> str:
    """The learning curves of each axis as one SVG."""
    lines = {
        f"{way}, {axis}": list(zip(NUMS_LABELS, found["curves"][way][axis], strict=True))
        for axis in ("harmless", "helpful")
        for way in WAYS
    }
    return plots.curves("Preference model: accuracy against the truth", lines, "labelled pairs", scale="log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heldout", type=int, default=400, help="held-out pairs of each axis")
    arguments = parser.parse_args()
    started, laboratory = time.monotonic(), Laboratory()
    heldout, seeds, before = heldout_rows(laboratory, arguments.heldout), [], []
    for seed in range(arguments.seeds):
        known = material(laboratory, seed)
        before.append(votes_alone(laboratory, known.votes, heldout, seed))
        seeds.append(curves(laboratory, known, heldout, seed))
    found = summary(seeds)
    result = {
        "num_pretraining_pairs": len(known.votes),
        "num_heldout": len(heldout),
        "min_steps": MIN_STEPS,
        "pretraining": laboratory.config.preference_model.pretraining.model_dump(),
        "fit": laboratory.config.preference_model.fit.model_dump(),
        "votes_alone": before,
        **found,
        "seconds": round(time.monotonic() - started, 1),
    }
    publish(result, arguments.json)
    if arguments.plot:
        arguments.plot.write_text(figure(found) + "\n")


if __name__ == "__main__":
    main()
