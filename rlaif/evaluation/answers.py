"""Which class each snapshot's answers are of: the rates of harm, refusal, evasion and help, with their intervals.

A prompt that the lexicon did not generate has no truth; its answers are counted as ``num_without_truth`` and left
out of every rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlaif.miniature.lexicon import Lexicon
from rlaif.miniature.truth import Class, classify
from rlaif.records import Answer, Axis
from rlaif.statistics.intervals import wilson

CLASSES: tuple[Class, ...] = ("harmful", "refusal", "evasive", "helpful", "malformed")
AXIS_NAMES: Mapping[Axis, str] = {"red_team": "red_team", "helpful": "benign"}  #: as in evaluation.json


@dataclass(frozen=True, kw_only=True)
class JudgedAnswer:
    """An answer and its true class; None when nothing is known about its prompt."""

    id: str
    axis: str
    snapshot: str
    prompt: str
    answer: str
    true_class: Class | None


def judge_answers(answers: Iterable[Answer], lexicon: Lexicon) -> Iterator[JudgedAnswer]:
    """Look up the class of every answer; an empty one is malformed like any other text outside the grammar."""
    for answer in answers:
        yield JudgedAnswer(
            id=answer.id,
            axis=AXIS_NAMES[answer.axis],
            snapshot=answer.snapshot,
            prompt=answer.prompt[-1].text,
            answer=answer.text,
            true_class=true_class(lexicon, answer.axis, answer.prompt[-1].text, answer.text),
        )


def true_class(lexicon: Lexicon, axis: Axis, request: str, answer: str) -> Class | None:
    try:
        return classify(lexicon, axis, request, answer)
    except ValueError:  # not a request of this lexicon
        return None


@dataclass(kw_only=True)
class AnswerRates:
    """Running counts per axis, snapshot and class; memory does not grow with the number of answers."""

    num_without_truth: int = 0
    counts: dict[tuple[str, str], Counter[Class]] = field(default_factory=dict)

    def add(self, judged: JudgedAnswer) -> None:
        if judged.true_class is None:
            self.num_without_truth += 1
        else:
            self.counts.setdefault((judged.axis, judged.snapshot), Counter())[judged.true_class] += 1

    def rates(self) -> dict[str, Any]:
        """``{axis: {snapshot: {class: rate}}}``; the rates of a snapshot on an axis sum to 1."""
        return self._tree(lambda hits, total: hits / total)

    def intervals(self) -> dict[str, Any]:
        """``{axis: {snapshot: {class: [low, high]}}}``, Wilson's 95%."""
        return self._tree(lambda hits, total: list(wilson(hits, total)))

    def numbers(self) -> dict[str, Any]:
        """``{axis: {snapshot: {class: answers of it, "total": all answers}}}``."""
        tree = self._tree(lambda hits, total: hits)
        for (axis, snapshot), classes in self.counts.items():
            tree[axis][snapshot]["total"] = classes.total()
        return tree

    def _tree(self, leaf: Any) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for (axis, snapshot), classes in self.counts.items():
            cell = {name: leaf(classes[name], classes.total()) for name in CLASSES}
            tree.setdefault(axis, {})[snapshot] = cell
        return tree
