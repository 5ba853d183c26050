"""What labels cost: time, GPU hours, money. For comparison (method): AI $0.50-5 per 1,000, crowd $50-500, experts
$1,000 and more."""

from __future__ import annotations

from collections.abc import Mapping

from rlaif.config.schema import Labeller


def cost_metrics(num_labels: int, seconds: float, num_engines: int, labeller: Labeller) -> Mapping[str, float]:
    """``label/cost/...`` of labels that ``num_engines`` made in ``seconds`` of wall-clock time, engines loaded.

    GPU hours exist where the labeller has GPUs, money where ``labeller.price_per_hour`` is set.
    """
    if not num_labels or seconds <= 0:
        return {}
    per_s, hours = num_labels / seconds, num_engines * seconds / 3600
    found = {"labels_per_s": per_s, "labels_per_engine_hour": num_labels / hours}
    if gpus := labeller.gpus * labeller.tensor_parallel:
        found["labels_per_gpu_hour"] = num_labels / (hours * gpus)
    if labeller.price_per_hour:
        found["money_per_1000_labels"] = 1000 * hours * labeller.price_per_hour / num_labels
    return {f"label/cost/{name}": value for name, value in found.items()}
