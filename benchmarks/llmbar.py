"""How good a judge is a model, on LLMBar's pairs, whose better answer is known (Zeng et al., arXiv 2310.07641)?

    rlaif label llmbar_pairs.jsonl --model MODEL --out runs/llmbar dialogue_format=chat_template
    python -m benchmarks.llmbar runs/llmbar llmbar_pairs.jsonl --json FILE

Reads the labels of the first command and says, for all pairs and for each of the file's subsets, what
``label_quality.json`` says of all: accuracy in either order and debiased, flips, slot bias, each with its 95% interval,
and the calibration error of the debiased probability. ``labels`` and ``unusable`` account for every pair.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import publish
from rlaif.labels.quality import measure
from rlaif.records import Preference
from rlaif.storage.journal import Journal

MEASURES = (
    "gold_accuracy_first",
    "gold_accuracy_second",
    "gold_accuracy",
    "flip_rate",
    "flips_to_slot_a",
    "slot_bias",
    "order_correlation",
)


def figures(labels: Sequence[Preference]) -> dict[str, Any]:
    quality = measure(labels)
    measures = quality.measures()
    shown = {
        name: {key: round(getattr(measures[name], key), 4) for key in ("value", "low", "high")}
        for name in MEASURES
        if name in measures
    }
    unusable = sum(label.prob is None for label in labels)
    return {
        "labels": len(labels),
        "unusable": unusable,
        **shown,
        "calibration_error": round(quality.calibration.error, 4),
    }


def labels_of(run_dir: Path) -> list[Preference]:
    journal = Journal(run_dir / "journal.sqlite")
    try:
        return list(journal.records(Preference, "preferences"))
    finally:
        journal.close()


def by_subset(labels: Iterable[Preference], rows: Sequence[dict[str, Any]]) -> dict[str, list[Preference]]:
    """``rows``: of the file that was labelled, in their order."""
    found: dict[str, list[Preference]] = {}
    for label in labels:
        found.setdefault(rows[label.source_row - 1]["subset"], []).append(label)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    labels = labels_of(options.run_dir)
    rows = [json.loads(line) for line in options.pairs.read_text(encoding="utf-8").splitlines()]
    subsets = {name: figures(found) for name, found in sorted(by_subset(labels, rows).items())}
    publish(
        {"pairs": len(rows), "model": labels[0].model_version, "all": figures(labels), "subsets": subsets}, options.json
    )


if __name__ == "__main__":
    main()
