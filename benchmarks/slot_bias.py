"""Does judging in both orders cancel a labeller's bias toward a slot? Judges of known bias, pairs of known truth.

    python -m benchmarks.slot_bias --json benchmarks/results/slot_bias.json

The miniature's feedback model, served by vLLM with a slot bias of 0, 1, 2 or 4 log-odds planted in its weights, labels
the same pairs each time: two answers of different classes to a held-out red-team or benign request. Reported against
the truth, for the first order only, the second only, and each aggregation: accuracy (a tie counts half), expected
calibration error and Brier score; and the bias as estimated from the labels themselves.

How to read it: ``logit_mean`` should stay within 0.02 of its own accuracy at bias 0, and ``measured_bias`` within
max(0.1, 0.1 b) of its target, which is b plus the bias that the model already has at b = 0.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.machine import publish
from rlaif.config.schema import Labelling, Miniature, PoolSettings
from rlaif.constitution.principles import load_constitution
from rlaif.data.comparisons import unsampled_comparison
from rlaif.engines import open_engine
from rlaif.in_process import InProcessPool
from rlaif.labels.quality import measure
from rlaif.miniature.lexicon import load_lexicon
from rlaif.miniature.make import make
from rlaif.miniature.truth import ORDER, better
from rlaif.miniature.world import World
from rlaif.records import Axis, Comparison, Preference, Turn
from rlaif.statistics.calibration import PairCalibration
from rlaif.statistics.intervals import wilson
from rlaif.statistics.logistic import sigmoid
from rlaif.tasks.labelling import Label, aggregate, votes_of

BIASES = (0.0, 1.0, 2.0, 4.0)
WAYS = ("first", "second", "prob_mean", "logit_mean", "agree_or_tie")


def pairs(num: int, seed: int = 0) -> Iterator[tuple[Comparison, bool]]:
    """Pairs about requests that no model was trained on, each with whether answer_1 is truly better."""
    world, rng = World(load_lexicon(), Miniature().seed), Random(seed)
    for number in range(num):
        axis: Axis = "red_team" if number % 2 else "helpful"
        request = world.request(rng, axis, heldout=True)
        kinds = rng.sample([kind for kind in ORDER[axis] if kind != "malformed"], 2)
        answers = [world.answer(rng, request, kind).text for kind in kinds]
        winner = better(axis, *kinds)
        assert winner is not None
        turns = (Turn(role="human", text=request.text),)
        yield unsampled_comparison(f"pair-{number}", turns, answers[0], answers[1], axis=axis), winner == 1


def prob(label: Preference, way: str) -> float:
    """P(answer_1 better) according to one order, or to an aggregation of both."""
    ((l1, l2),) = votes_of(label.judgements)
    if way in ("first", "second"):
        return sigmoid(l1 if way == "first" else l2)
    return aggregate(l1, l2, way)  # type: ignore[arg-type]  # an aggregation's name


async def labels_of(model: Path, comparisons: Sequence[Comparison]) -> list[Preference]:
    """The labels of one judge, served by vLLM in this process."""
    settings = PoolSettings(threads=2, max_length=512, max_in_flight=256, kv_cache_gib=0.5)
    task = Label(
        seed=0,
        constitution=load_constitution("sixteen_principles"),
        settings=Labelling(aggregation="logit_mean"),
        dialogue_format="human_assistant",
    )
    pool = InProcessPool("labeller", open_engine("labeller", model, settings), settings)
    records = {done.row.id: done.record async for back in pool.run(task, comparisons) for done in back}
    await pool.close()
    return [record for pair in comparisons if (record := records[pair.id]) is not None]


def scores(labels: Sequence[Preference], truth: Sequence[bool], way: str) -> dict[str, Any]:
    calibration, right = PairCalibration(), 0.0
    for label, first_is_better in zip(labels, truth, strict=True):
        predicted = prob(label, way)
        calibration.add(predicted, first_is_better)
        right += 0.5 if predicted == 0.5 else float((predicted > 0.5) == first_is_better)
    return {
        "accuracy": right / len(labels),
        "interval": list(wilson(right, len(labels))),
        "ece": calibration.error,
        "brier": calibration.brier,
    }


def run(num_pairs: int) -> dict[str, Any]:
    comparisons, truth = zip(*pairs(num_pairs), strict=True)
    constitution = load_constitution("sixteen_principles")
    judges: dict[str, Any] = {}
    for bias in BIASES:
        model = make(Miniature(slot_bias=bias), constitution).path("feedback")
        labels = asyncio.run(labels_of(model, comparisons))
        assert len(labels) == len(comparisons)
        quality = measure(labels).metrics()
        judges[f"{bias:g}"] = {
            **{way: scores(labels, truth, way) for way in WAYS},
            "measured_bias": quality["label/quality/slot_bias"],
            "flip_rate": quality["label/quality/flip_rate"],
        }
    for judge in judges.values():
        judge["logit_mean_against_unbiased"] = judge["logit_mean"]["accuracy"] - judges["0"]["logit_mean"]["accuracy"]
    return {"num_pairs": num_pairs, "judges": judges}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=2000)
    arguments = parser.parse_args()
    publish(run(arguments.pairs), arguments.json)


if __name__ == "__main__":
    main()
