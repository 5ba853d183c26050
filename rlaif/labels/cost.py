"""What labels cost: time, GPU hours, money. For comparison, per 1,000 labels: AI $0.50-5, crowd workers $50-500,
experts $1,000 and more."""

from __future__ import annotations

from collections.abc import Mapping

from rlaif.config.schema import Labeller


def cost_metrics(num_labels: int, seconds: float, engine_s: float, labeller: Labeller) -> Mapping[str, float]:
    """``label/cost/...`` of labels made in ``seconds`` of wall-clock time by engines that served for ``engine_s``
    seconds, all together.

    GPU hours are given where the labeller has GPUs, money where ``labeller.price_per_hour`` is set.
    """
    if not num_labels or engine_s <= 0:
        return {}
    hours = engine_s / 3600
    costs = {"labels_per_s": num_labels / seconds, "labels_per_engine_hour": num_labels / hours}
    if gpus := labeller.gpus * labeller.tensor_parallel:
        costs["labels_per_gpu_hour"] = num_labels / (hours * gpus)
    if labeller.price_per_hour:
        costs["money_per_1000_labels"] = 1000 * hours * labeller.price_per_hour / num_labels
    return {f"label/cost/{name}": value for name, value in costs.items()}
