"""``evaluation.json``: what the snapshots answer and how right the labels are, with every judged text beside it.

The truth is the miniature's, so the numbers exist for prompts of its lexicon; for other data the file says how many
answers and labels there are without truth.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif.evaluation.answers import AnswerRates, judge_answers
from rlaif.evaluation.labels import LabelAccuracy, judge_labels
from rlaif.miniature.lexicon import Lexicon
from rlaif.records import Answer, Preference
from rlaif.storage.run_dir import RunDir, write_atomically

SNAPSHOTS = ("helpful_only", "sl_cai", "rl_cai")
ANSWERS_FILE = "evaluation_answers.jsonl"
LABELS_FILE = "evaluation_labels.jsonl"


def write_evaluation(run_dir: RunDir, lexicon: Lexicon) -> None:
    """Judge every evaluation answer and label of the run, and write the three files."""
    evaluation = evaluate_run_dir(run_dir, lexicon)
    write_atomically(run_dir.path / "evaluation.json", json.dumps(evaluation, indent=2) + "\n")


def evaluate_run_dir(run_dir: RunDir, lexicon: Lexicon) -> dict[str, Any]:
    """The content of ``evaluation.json``; writes the judged texts while it goes through them.

    ``answers.AXIS.SNAPSHOT.CLASS`` and ``label_accuracy.WAY`` are plain rates; ``counts`` and ``intervals`` (Wilson's
    95%) repeat their shape.
    """
    rates, accuracy = AnswerRates(), LabelAccuracy()
    answers = judge_answers(_answers(run_dir), lexicon)
    _write_each(run_dir.path / ANSWERS_FILE, answers, rates)
    labels = judge_labels(run_dir.journal.records(Preference, "preferences"), lexicon)
    _write_each(run_dir.path / LABELS_FILE, labels, accuracy)
    return {
        "answers": rates.rates(),
        "label_accuracy": accuracy.rates(),
        "label_calibration": accuracy.calibration(),
        "counts": {
            "answers": rates.numbers(),
            "label_accuracy": accuracy.numbers(),
            "answers_without_truth": rates.num_without_truth,
            "labels_left_out": run_dir.journal.count("preferences") - accuracy.num_labels,
        },
        "intervals": {"answers": rates.intervals(), "label_accuracy": accuracy.intervals()},
    }


def _answers(run_dir: RunDir) -> Iterator[Answer]:
    for snapshot in SNAPSHOTS:
        yield from run_dir.journal.records(Answer, f"answers_{snapshot}")


def _write_each(path: Path, judged: Iterable[Any], total: AnswerRates | LabelAccuracy) -> None:
    """One JSON line for each judged text, and its place in the totals."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        for item in judged:
            total.add(item)
            file.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
    unfinished.replace(path)
