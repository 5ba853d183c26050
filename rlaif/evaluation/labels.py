"""How often AI labels are right where the truth is known: by either order, and debiased.

``first`` is the label by the first order only (answer 1 in slot A), ``second`` by the second only (un-swapped), and
``debiased`` the label that training uses. A tie counts as half right. Two answers of the same class have no true
preference; such pairs are left out, as are labels without a probability.
Source: Lee et al. (arXiv 2309.00267), section 2.1, for averaging over both orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rlaif.evaluation import plots
from rlaif.evaluation.answers import true_class
from rlaif.evaluation.evaluator import Evaluator, Headline, Measurement, Results
from rlaif.evaluation.findings import Findings
from rlaif.evaluation.formatting import number, percent, percent_interval, words_of
from rlaif.evaluation.judged_texts import write_judged
from rlaif.evaluation.section import Block, Figures, Paragraph, ReportSection, Table
from rlaif.miniature.lexicon import Lexicon
from rlaif.miniature.truth import Class, better
from rlaif.records import Preference
from rlaif.statistics.calibration import PairCalibration
from rlaif.statistics.estimates import Cases
from rlaif.storage.run_dir import RunDir
from rlaif.tasks.labelling import TIE_WIDTH, prob_by_order

LABELS_FILE = "evaluation_labels.jsonl"
WAYS = ("first", "second", "debiased")


# ------------------------------------------------------------------------------------------------------ measuring
@dataclass(frozen=True, kw_only=True)
class JudgedLabel:
    """A label and the truth. ``first``, ``second`` and ``debiased`` are P(answer_1 better)."""

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
    """The labels that have a probability and a true preference."""
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
    """Running accuracy of all three, and calibration of the debiased label."""

    right: dict[str, Cases] = field(default_factory=lambda: {way: Cases() for way in WAYS})
    debiased: PairCalibration = field(default_factory=PairCalibration)

    def add(self, label: JudgedLabel) -> None:
        for way in WAYS:
            self.right[way].add(rightness(getattr(label, way), label.truly_better), label.prompt)
        self.debiased.add(label.debiased, label.truly_better == 1)

    @property
    def num_labels(self) -> int:
        return self.debiased.num_pairs

    def rates(self) -> dict[str, float | None]:
        """Accuracy of each way; None when no label has a true preference."""
        return {way: cases.rate().value if cases.num else None for way, cases in self.right.items()}

    def intervals(self) -> dict[str, list[float]]:
        """Wilson's 95%, over prompts where a prompt has more than one label."""
        rates = {way: cases.rate() for way, cases in self.right.items()}
        return {way: [rate.low, rate.high] for way, rate in rates.items()}

    def numbers(self) -> Mapping[str, float]:
        return {**{way: sum(cases.values) for way, cases in self.right.items()}, "total": self.num_labels}

    def calibration(self) -> Mapping[str, object] | None:
        """Calibration of the debiased label; None without labels."""
        if not self.num_labels:
            return None
        return self.debiased.summary()


def rightness(prob: float, truly_better: Literal[1, 2]) -> float:
    """1 when P(answer_1 better) points to the better answer, 0 to the worse, 0.5 to neither."""
    if abs(prob - 0.5) < TIE_WIDTH:
        return 0.5
    return float((prob > 0.5) == (truly_better == 1))


def _measure(run_dir: RunDir, lexicon: Lexicon) -> Measurement:
    """Judge every label of the run; the judged ones are written to ``evaluation_labels.jsonl``."""
    accuracy = LabelAccuracy()
    labels = run_dir.journal.records(Preference, "preferences")
    write_judged(run_dir.path / LABELS_FILE, judge_labels(labels, lexicon), accuracy.add)
    return Measurement(
        results={"label_accuracy": accuracy.rates(), "label_calibration": accuracy.calibration()},
        counts={"label_accuracy": accuracy.numbers()},
        left_out={"labels_left_out": run_dir.journal.count("preferences") - accuracy.num_labels},
        intervals={"label_accuracy": accuracy.intervals()},
    )


# -------------------------------------------------------------------------------------------------------- showing
def _accuracy(evaluation: Results) -> Mapping[str, float]:
    """Accuracy of each way; empty where there is none."""
    return {way: rate for way, rate in evaluation.get("label_accuracy", {}).items() if rate is not None}


def _headlines(evaluation: Results) -> list[Headline]:
    accuracy = _accuracy(evaluation)
    if not accuracy:
        return []
    note = f"with one order only: {percent(accuracy['first'])} and {percent(accuracy['second'])}"
    return [Headline(value=percent(accuracy["debiased"]), title="of debiased labels are right", note=note)]


def _remarks(evaluation: Results) -> list[str]:
    accuracy = _accuracy(evaluation)
    return (
        ["label accuracy: " + ", ".join(f"{way} {percent(rate)}" for way, rate in accuracy.items())] if accuracy else []
    )


def _section(findings: Findings) -> ReportSection | None:
    """Accuracy where the truth is known, and what ``label_quality.json`` says without it."""
    figures = _figures(findings)
    if not figures:
        return None
    blocks = [*_accuracy_blocks(findings.evaluation), Figures(svgs=figures), _quality_table(findings)]
    return ReportSection(title="Labels", link="Labels", blocks=[*blocks, *_principle_blocks(findings.label_quality)])


def _figures(findings: Findings) -> list[str]:
    histogram, quality = findings.label_histogram(), findings.label_quality
    calibration = findings.evaluation.get("label_calibration")
    figures = [plots.label_histogram(histogram)] if any(histogram) else []
    if calibration:
        figures.append(plots.reliability_plot(calibration["bins"]))
    if quality:
        bias, length = quality["slot_bias_histogram"], quality["longer_preferred_by_ratio"]
        figures.append(plots.slot_bias_histogram(bias["centres"], bias["counts"]))
        figures.append(plots.length_bias(length["upper_bounds"], length["measures"]))
        if quality["calibration"]:
            figures.append(
                plots.reliability_plot(quality["calibration"]["bins"], outcome="share that gold labels agree with")
            )
    return figures


def _accuracy_blocks(evaluation: Results) -> list[Block]:
    accuracy = _accuracy(evaluation)
    if not accuracy:
        return []
    intervals, total = evaluation["intervals"]["label_accuracy"], evaluation["counts"]["label_accuracy"]["total"]
    text = (
        f"Accuracy on the {number(total)} pairs that have a true preference: by the first order only, by the second "
        "only, and debiased, as used in training."
    )
    rows = [[way, percent(rate), percent_interval(intervals[way])] for way, rate in accuracy.items()]
    return [Paragraph(text=text), Table(header=["", "right", "95% interval"], rows=rows)]


def _quality_table(findings: Findings) -> Table:
    """Measures that need no truth, cost, and calibration."""
    quality = findings.label_quality.get("overall", {})
    rows = [
        [words_of(key), number(m["value"]), f"{number(m['low'])} – {number(m['high'])}", number(m["num"])]
        for key, m in quality.items()
    ]
    rows += [[words_of(key.rpartition("/")[2]), number(v), "", ""] for key, v in findings.last("label/cost/").items()]
    if calibration := findings.evaluation.get("label_calibration"):
        rows.append(["expected calibration error", number(calibration["expected_calibration_error"]), "", ""])
        rows.append(["Brier score", number(calibration["brier_score"]), "", ""])
    return Table(header=["", "value", "95% interval", "over"], rows=rows)


def _principle_blocks(quality: Results) -> list[Block]:
    by_principle = quality.get("by_principle", {})
    if not by_principle:
        return []
    text = "By principle: how often the winner changes with the order, and the bias toward slot A."
    rows = [
        [
            words_of(id),
            number(measures["flip_rate"]["num"]),
            percent(measures["flip_rate"]["value"]),
            f"{measures['slot_bias']['value']:+.2f}",
            percent(measures["agreement"]["value"]),
        ]
        for id, measures in by_principle.items()
    ]
    header = ["principle", "votes", "flips", "slot bias", "agrees with the label"]
    return [Paragraph(text=text), Table(header=header, rows=rows)]


LABEL_ACCURACY = Evaluator(name="labels", measure=_measure, section=_section, headlines=_headlines, remarks=_remarks)
