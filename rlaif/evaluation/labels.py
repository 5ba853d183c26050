"""How often AI labels are right where the truth is known: with answer 1 in slot A, in slot B, and debiased.

``first`` is what the first order alone says (answer 1 in slot A), ``second`` what the second alone says (un-swapped),
``debiased`` the label that training sees. A tie counts as half right. Pairs of one class have no true preference and
are left out, as are labels that never became a number.
Source: Lee et al. (arXiv 2309.00267), section 2.1, for averaging over both orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rlaif.evaluation.answers import true_class
from rlaif.miniature.lexicon import Lexicon
from rlaif.miniature.truth import Class, better
from rlaif.records import Preference
from rlaif.statistics.calibration import PairCalibration
from rlaif.statistics.intervals import wilson
from rlaif.tasks.labelling import TIE_WIDTH, prob_by_order

WAYS = ("first", "second", "debiased")


@dataclass(frozen=True, kw_only=True)
class JudgedLabel:
    """A label beside the truth. ``first``, ``second`` and ``debiased`` are P(answer_1 better)."""

    id: str
    prompt: str
    answer_1: str
    answer_2: str
    class_1: Class
    class_2: Class
    truly_better: Literal[1, 2]
    first: float
    second: float
    debiased: float


def judge_labels(labels: Iterable[Preference], lexicon: Lexicon) -> Iterator[JudgedLabel]:
    """The labels that have a number and a true preference."""
    for label in labels:
        if label.prob is None:
            continue
        request = label.prompt[-1].text
        class_1 = true_class(lexicon, label.axis, request, label.answer_1)
        class_2 = true_class(lexicon, label.axis, request, label.answer_2)
        if class_1 is None or class_2 is None:
            continue
        winner = better(label.axis, class_1, class_2)
        if winner is not None:
            yield JudgedLabel(
                id=label.id,
                prompt=request,
                answer_1=label.answer_1,
                answer_2=label.answer_2,
                class_1=class_1,
                class_2=class_2,
                truly_better=winner,
                first=prob_by_order(label.judgements, 1),
                second=prob_by_order(label.judgements, 2),
                debiased=label.prob,
            )


@dataclass(kw_only=True)
class LabelAccuracy:
    """Running accuracy of the three ways to label, and calibration of the debiased one."""

    num_labels: int = 0
    num_right: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WAYS, 0.0))
    debiased: PairCalibration = field(default_factory=PairCalibration)

    def add(self, label: JudgedLabel) -> None:
        self.num_labels += 1
        for way in WAYS:
            self.num_right[way] += rightness(getattr(label, way), label.truly_better)
        self.debiased.add(label.debiased, label.truly_better == 1)

    def rates(self) -> dict[str, float | None]:
        """Accuracy of each way; None when no label has a true preference."""
        return {way: self.num_right[way] / self.num_labels if self.num_labels else None for way in WAYS}

    def intervals(self) -> dict[str, list[float]]:
        return {way: list(wilson(self.num_right[way], self.num_labels)) for way in WAYS}

    def numbers(self) -> Mapping[str, float]:
        return {**self.num_right, "total": self.num_labels}

    def calibration(self) -> Mapping[str, object] | None:
        """How far the debiased label's probability is a probability; None without labels."""
        if not self.num_labels:
            return None
        return self.debiased.summary()


def rightness(prob: float, truly_better: Literal[1, 2]) -> float:
    """1 when P(answer_1 better) points to the better answer, 0 to the worse, 0.5 to neither."""
    if abs(prob - 0.5) < TIE_WIDTH:
        return 0.5
    return float((prob > 0.5) == (truly_better == 1))
