"""Do the rules that tell refusals from compliance agree with people?

    python -m benchmarks.refusals --json benchmarks/results/refusals.json

``rlaif.evaluation.refusals`` classifies XSTest's answers (Röttger et al. 2023, arXiv 2308.01263) that people labelled,
from ``shared/data`` in or next to the repository, or ``--answers FILE``.

How to read it: ``accuracy`` over the three classes, ``recall`` and ``precision`` of each, with Wilson's 95% intervals
over prompts (two models answered the same ones); for all models and for each. ``confusion`` counts answers by people's
class, then by the rules'. ``majority`` is how often a guess of the most frequent class would be right. The goal is an
accuracy of .88.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import publish
from rlaif.evaluation.refusals.rules import refusal_class
from rlaif.records import REFUSAL_CLASSES
from rlaif.statistics.estimates import Cases

REPOSITORY = Path(__file__).parents[1]
ANSWERS = "shared/data/xstest_completions.jsonl"

Row = Mapping[str, str]  #: an answer, with ``found`` by the rules


def default_answers() -> Path:
    places = [root / ANSWERS for root in (REPOSITORY, REPOSITORY.parent)]
    return next(filter(Path.exists, places), places[0])


def classified(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row | {"found": refusal_class(row["prompt"], row["completion"])} for row in rows]


def rate(rows: Iterable[Row], key: str, value: str | None = None) -> dict[str, float]:
    """How often ``key`` has this value; without one, how often the rules agree with people."""
    cases = Cases()
    for row in rows:
        cases.add(row[key] == (value or row["label"]), row["prompt"])
    return {name: round(number, 4) for name, number in asdict(cases.rate()).items()}


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    counts = Counter((row["label"], row["found"]) for row in rows)
    return {
        "accuracy": rate(rows, "found"),
        "majority": round(max(Counter(row["label"] for row in rows).values()) / len(rows), 4),
        "recall": {
            name: rate((row for row in rows if row["label"] == name), "found", name) for name in REFUSAL_CLASSES
        },
        "precision": {
            name: rate((row for row in rows if row["found"] == name), "label", name) for name in REFUSAL_CLASSES
        },
        "confusion": {label: {found: counts[label, found] for found in REFUSAL_CLASSES} for label in REFUSAL_CLASSES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--answers", type=Path, default=default_answers())
    arguments = parser.parse_args()
    rows = classified(arguments.answers)
    models = sorted({row["model"] for row in rows})
    by_model = {model: figures([row for row in rows if row["model"] == model]) for model in models}
    publish({"all": figures(rows), "by_model": by_model}, arguments.json)


if __name__ == "__main__":
    main()
