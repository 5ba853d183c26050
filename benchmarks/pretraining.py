"""Does pretraining on voted answers (PMP) save labels? The preference model's (PM's) learning curves with and without.

    python -m benchmarks.pretraining --json benchmarks/results/pretraining.json --plot pretraining.svg

A PM is fitted on 25 to 200 labelled pairs of the miniature, half of them AI harmlessness labels and half human
helpfulness pairs, as in the quickstart, in three ways: ``alone``, without pretraining; after one pass over the
quickstart's ``votes``, which are about benign questions only; after one pass over ``moderated`` votes, which are about
benign and harmful questions. Accuracy is measured against the truth on pairs about requests that no model was trained
on, half of them from each axis.

The moderated votes imitate a public site whose moderators delete harmful answers. What remains under a harmful question
are refusals with a reason, refusals without one, and off-topic answers (help with something benign); people vote for
them in this order. So the votes contain no harmful answer and no verdict on one. (The quickstart cannot use them: its
control experiment, RL on shuffled labels, needs votes that carry no information about harm.)

Every fit uses two recipes, the same for all three ways: the quickstart's learning rate, and the published rule of a
tenth of the pretraining rate (with more steps, since it learns more slowly). Small sets of labels get more epochs, so
that every fit takes its recipe's minimum number of optimizer steps: otherwise few labels would also mean an
undertrained model, and pretraining would get credit for its extra steps. At each number of labels, a way's curve takes
the recipe with the better accuracy on ``validation`` pairs, whose requests differ from the held-out ones.

How to read it: ``curves``: mean accuracy over the seeds by number of labels, for both axes together and for each;
``gain``: paired difference to ``alone`` with its 95% interval (Student's t over the seeds); ``labels_needed``: where
each curve first reaches an accuracy, interpolated on the logarithm of the number of labels (25 means "at most 25", null
means "not even with 200"); ``recipe_curves``: the same curves for each recipe separately; ``votes_alone``: for each
seed, the accuracy after the pass over the votes and before any label. Below 0.5 on an axis, the votes taught the
opposite, and the labels have to undo it.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.intervals import paired_interval
from benchmarks.laboratory import AXES, Laboratory
from benchmarks.machine import publish
from rlaif.config.schema import Optimization
from rlaif.data.pairs import read_pairs
from rlaif.data.votes import read_votes
from rlaif.evaluation import plots
from rlaif.miniature.corpus import draw
from rlaif.miniature.data import NUM_QUESTIONS, votes
from rlaif.miniature.world import AnswerKind, World, WorldRequest
from rlaif.seeds import seed_from
from rlaif.training.batches import TrainingRow

NUMS_LABELS = (25, 50, 100, 200)
NUM_VALIDATION = 150  #: pairs for each axis
TARGETS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
WAYS = ("alone", "votes", "moderated")
FIGURES = {"both": "accuracy", "harmless": "accuracy_harmless", "helpful": "accuracy_helpful"}

#: Harmful questions on the moderated site: frequency of each kind of answer, and its median number of votes.
STANDING: Mapping[AnswerKind, float] = {"refusal": 0.5, "evasive": 0.25, "malformed": 0.25}
MEDIAN_VOTES: Mapping[AnswerKind, float] = {"refusal": 12, "evasive": 3, "malformed": 0}

Curve = Sequence[float]  #: accuracy at each of NUMS_LABELS
Accuracies = Mapping[str, float]  #: by FIGURES


@dataclass(frozen=True, kw_only=True)
class Recipe:
    learning_rate: float
    min_steps: int


RECIPES = {
    "quickstart": Recipe(learning_rate=1e-3, min_steps=40),
    "tenth": Recipe(learning_rate=1e-4, min_steps=100),
}


# ------------------------------------------------------------------------------------------------------ material
def moderated_votes(world: World) -> list[dict[str, Any]]:
    """The quickstart's questions and the same number of harmful ones, with the answers that the moderators leave."""
    rng = Random(seed_from("moderated", world.seed))
    return [*votes(world), *(_moderated(rng, world) for _ in range(NUM_QUESTIONS))]


def _moderated(rng: Random, world: World) -> dict[str, Any]:
    request = world.request(rng, "red_team")
    answers = [_voted(rng, world, request) for _ in range(rng.randint(2, 4))]
    best = max(answers, key=lambda answer: answer["votes"])
    best["accepted"] = best["votes"] > 0
    return {"question": request.text, "answers": answers}


def _voted(rng: Random, world: World, request: WorldRequest) -> dict[str, Any]:
    kind = draw(rng, STANDING)
    count = round(MEDIAN_VOTES[kind] * rng.lognormvariate(0, 0.5) + rng.gauss(0, 1))
    off_topic = kind == "malformed"
    answer = world.answer(rng, world.request(rng, "helpful"), "helpful") if off_topic else None
    text = (answer or world.answer(rng, request, kind)).text
    return {"text": text, "votes": count, "accepted": False}


@dataclass(frozen=True, kw_only=True)
class Material:
    """Rows to learn from; a fit takes ``ai`` and ``human`` rows alternately. ``votes``: by way."""

    votes: Mapping[str, Sequence[TrainingRow]]
    ai: Sequence[TrainingRow]
    human: Sequence[TrainingRow]

    def labelled(self, num: int) -> list[TrainingRow]:
        return [row for pair in zip(self.ai, self.human, strict=True) for row in pair][:num]


def material(laboratory: Laboratory, seed: int) -> Material:
    """The rows of one seed; the votes are the same for every seed."""
    num = max(NUMS_LABELS) // 2
    labels = laboratory.labels(laboratory.comparisons(f"pretraining-{seed}", "red_team", num))
    human = list(read_pairs(str(laboratory.paths.path("helpful_pairs")), print))
    sample = Random(seed_from("pretraining", seed)).sample(human, num)
    return Material(
        votes={
            "votes": vote_rows(laboratory, votes(laboratory.world)),
            "moderated": vote_rows(laboratory, moderated_votes(laboratory.world)),
        },
        ai=laboratory.rows(labels, {label.id: label.prob for label in labels if label.prob is not None}),
        human=[dict(row) for row in laboratory.builder.from_pairs(sample)],
    )


def vote_rows(laboratory: Laboratory, questions: Sequence[Mapping[str, Any]]) -> list[TrainingRow]:
    """Pretraining pairs, built as in a run that reads the questions from a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(question) + "\n" for question in questions))
        file.flush()
        return [dict(row) for row in laboratory.builder.from_votes(read_votes(file.name, print))]


def judged_rows(laboratory: Laboratory, name: str, num: int, *, heldout: bool) -> list[TrainingRow]:
    """``num`` pairs for each axis, with the truth as their labels."""
    pairs = [p for axis in AXES for p in laboratory.comparisons(name, axis, num, heldout=heldout)]
    labels = laboratory.labels(pairs)
    return laboratory.rows(labels, laboratory.truth(labels))


# ------------------------------------------------------------------------------------------------------- fitting
def optimization(laboratory: Laboratory, recipe: Recipe, num_labels: int) -> Optimization:
    settings = laboratory.config.preference_model.fit
    epochs = math.ceil(recipe.min_steps / math.ceil(num_labels / settings.batch_size))
    rate = recipe.learning_rate
    return settings.model_copy(update={"epochs": max(settings.epochs, epochs), "learning_rate": rate})


def accuracies(metrics: Mapping[str, float]) -> Accuracies:
    return {axis: metrics[figure] for axis, figure in FIGURES.items()}


def one_seed(num_heldout: int, seed: int) -> dict[str, Any]:
    """Way -> recipe -> part -> accuracies at each number of labels; ``votes_alone`` -> way -> held-out accuracies."""
    laboratory = Laboratory()
    training = material(laboratory, seed)
    parts = {
        "heldout": judged_rows(laboratory, "test", num_heldout, heldout=True),
        "validation": judged_rows(laboratory, "validation", NUM_VALIDATION, heldout=False),
    }
    curves: dict[str, Any] = {"votes_alone": {}}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as directory:
            start = None
            if way in training.votes:
                start = Path(directory) / "pretrained"
                passes = laboratory.config.preference_model.pretraining
                reports = laboratory.passes(training.votes[way], parts, passes, seed, save=start)
                curves["votes_alone"][way] = accuracies(reports["heldout"])
            for name, recipe in RECIPES.items():
                curves.setdefault(way, {})[name] = _curves(laboratory, training, parts, recipe, seed, start)
    print(json.dumps({"seed": seed, **curves}), flush=True)
    return curves


def _curves(
    laboratory: Laboratory,
    training: Material,
    parts: Mapping[str, Sequence[TrainingRow]],
    recipe: Recipe,
    seed: int,
    start: Path | None,
) -> dict[str, list[Accuracies]]:
    """Part -> accuracies at each number of labels."""
    curves: dict[str, list[Accuracies]] = {part: [] for part in parts}
    for num in NUMS_LABELS:
        passes = optimization(laboratory, recipe, num)
        reports = laboratory.passes(training.labelled(num), parts, passes, seed, start=start)
        for part in parts:
            curves[part].append(accuracies(reports[part]))
    return curves


# ------------------------------------------------------------------------------------------------------- summary
def chosen_recipes(seeds: Sequence[Mapping[str, Any]], way: str) -> list[str]:
    """The recipe with the better mean accuracy on validation pairs, at each number of labels."""

    def validated(recipe: str, place: int) -> float:
        return float(np.mean([seed[way][recipe]["validation"][place]["both"] for seed in seeds]))

    return [max(RECIPES, key=lambda recipe: validated(recipe, place)) for place in range(len(NUMS_LABELS))]


def heldout_curves(seed: Mapping[str, Any], way: str, recipes: Sequence[str]) -> dict[str, Curve]:
    """Axis -> curve of one seed; ``recipes`` has one for each number of labels."""
    return {
        axis: [seed[way][recipe]["heldout"][place][axis] for place, recipe in enumerate(recipes)] for axis in FIGURES
    }


def labels_needed(curve: Curve, target: float) -> float | None:
    """Where the curve first reaches ``target``, interpolated on the logarithm of the number of labels."""
    points = list(zip(np.log(NUMS_LABELS), curve, strict=True))
    if points[0][1] >= target:
        return float(NUMS_LABELS[0])
    for (left, low), (right, high) in pairwise(points):
        if low < target <= high:
            return float(np.exp(left + (right - left) * (target - low) / (high - low)))
    return None


def compare(seeds: Sequence[Mapping[str, Any]], recipes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Mean curves, gains over the fit without pretraining, and labels needed, with the given recipes of each way."""
    each = {way: [heldout_curves(seed, way, recipes[way]) for seed in seeds] for way in WAYS}
    means = {
        way: {axis: np.mean([curves[axis] for curves in of], axis=0).tolist() for axis in FIGURES}
        for way, of in each.items()
    }
    gains = {way: {axis: _gain(each[way], each["alone"], axis) for axis in FIGURES} for way in WAYS if way != "alone"}
    needed = {
        axis: {str(target): {way: labels_needed(means[way][axis], target) for way in WAYS} for target in TARGETS}
        for axis in FIGURES
    }
    return {"curves": means, "gain": gains, "labels_needed": needed}


def _gain(ours: Sequence[Mapping[str, Curve]], alone: Sequence[Mapping[str, Curve]], axis: str) -> list[Any]:
    differences = np.array([a[axis] for a in ours]) - np.array([b[axis] for b in alone])  # [seeds, numbers]
    return [paired_interval(column.tolist()) for column in differences.T]


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    recipes = {way: chosen_recipes(seeds, way) for way in WAYS}
    return {
        "num_labels": NUMS_LABELS,
        "chosen_recipes": recipes,
        **compare(seeds, recipes),
        "recipe_curves": {
            name: compare(seeds, {way: [name] * len(NUMS_LABELS) for way in WAYS})["curves"] for name in RECIPES
        },
        "votes_alone": [seed["votes_alone"] for seed in seeds],
        "seeds": seeds,
    }


def figure(result: Mapping[str, Any]) -> str:
    """The learning curves for both axes together, as an SVG."""
    names = {"alone": "fit only", "votes": "benign votes, then fit", "moderated": "moderated votes, then fit"}
    lines = {name: list(zip(NUMS_LABELS, result["curves"][way]["both"], strict=True)) for way, name in names.items()}
    return plots.curves("Preference model: accuracy against the truth", lines, "labelled pairs", scale="log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heldout", type=int, default=400, help="held-out pairs for each axis")
    arguments = parser.parse_args()
    started = time.monotonic()
    Laboratory()  # makes the miniature once, for all processes
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # one seed on each core
        seeds = list(pool.map(partial(one_seed, arguments.heldout), range(arguments.seeds)))
    result = {
        "num_heldout": 2 * arguments.heldout,
        "num_validation": 2 * NUM_VALIDATION,
        "recipes": {name: asdict(recipe) for name, recipe in RECIPES.items()},
        **summary(seeds),
        "seconds": round(time.monotonic() - started, 1),
    }
    publish(result, arguments.json)
    if arguments.plot:
        arguments.plot.write_text(figure(result) + "\n")


if __name__ == "__main__":
    main()
