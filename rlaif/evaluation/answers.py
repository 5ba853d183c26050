"""Which class each snapshot's answers belong to: the rates of harm, refusal, evasion and help, with their intervals.

A prompt that the lexicon did not generate has no truth; its answers are counted as ``answers_without_truth`` and left
out of every rate.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlaif.evaluation import plots
from rlaif.evaluation.evaluator import Evaluator, Headline, Measurement, Results
from rlaif.evaluation.findings import Findings, JsonObject
from rlaif.evaluation.formatting import number, percent
from rlaif.evaluation.judged_texts import write_judged
from rlaif.evaluation.section import Block, Cell, Figures, Heading, Legend, Paragraph, ReportSection, Table
from rlaif.miniature.lexicon import Lexicon
from rlaif.miniature.truth import Class, classify
from rlaif.records import Answer, Axis
from rlaif.statistics.estimates import CountedEstimate, rate_of
from rlaif.storage.run_dir import RunDir

ANSWERS_FILE = "evaluation_answers.jsonl"
#: The snapshots in the order in which they are made, and what people call them.
SNAPSHOTS: Mapping[str, str] = {"helpful_only": "helpful-only", "sl_cai": "SL-CAI", "rl_cai": "RL-CAI"}
CLASSES: tuple[Class, ...] = ("harmful", "refusal", "evasive", "helpful", "malformed")
AXIS_NAMES: Mapping[Axis, str] = {"red_team": "red_team", "helpful": "benign"}  #: as in evaluation.json
AXIS_TITLES = {"red_team": "Red-team prompts", "benign": "Benign prompts"}
#: The classes of an axis. The one that matters most comes first: its bar starts at 0, so its interval fits on it.
CLASS_ORDER: Mapping[str, tuple[Class, ...]] = {
    "red_team": ("harmful", "malformed", "evasive", "refusal"),
    "benign": ("helpful", "refusal", "evasive", "malformed"),
}
CLASS_COLOURS: Mapping[str, str] = {
    "harmful": "#c8443c",
    "refusal": "#3f6fb0",
    "evasive": "#e3a63a",
    "helpful": "#3f9a68",
    "malformed": "#a3a8b0",
}


# ------------------------------------------------------------------------------------------------------ measuring
@dataclass(frozen=True, kw_only=True)
class JudgedAnswer:
    """An answer and its true class; None when its prompt has no known truth."""

    id: str
    axis: str
    snapshot: str
    prompt: str
    answer: str
    true_class: Class | None


def judge_answers(answers: Iterable[Answer], lexicon: Lexicon) -> Iterator[JudgedAnswer]:
    """The class of every answer; an empty one is malformed, as is any text that the grammar does not generate."""
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
    """The classes of answers per axis and snapshot, in some 10 bytes an answer.

    Answers to one prompt are not independent: intervals are over prompts (``rlaif.statistics.clusters``).
    """

    num_without_truth: int = 0
    cells: dict[tuple[str, str], AnswerCell] = field(default_factory=dict)

    def add(self, judged: JudgedAnswer) -> None:
        if judged.true_class is None:
            self.num_without_truth += 1
        else:
            cell = self.cells.setdefault((judged.axis, judged.snapshot), AnswerCell())
            cell.classes.append(CLASSES.index(judged.true_class))
            cell.prompts.append(hash(judged.prompt))

    def rates(self) -> JsonObject:
        """``{axis: {snapshot: {class: rate}}}``; the rates of a snapshot on an axis sum to 1."""
        return self._tree(lambda estimate: estimate.value)

    def intervals(self) -> JsonObject:
        """``{axis: {snapshot: {class: [low, high]}}}``, Wilson's 95%."""
        return self._tree(lambda estimate: [estimate.low, estimate.high])

    def numbers(self) -> JsonObject:
        """``{axis: {snapshot: {class: answers of it, "total": all answers}}}``."""
        tree = self._tree(lambda estimate: round(estimate.value * estimate.num))
        for (axis, snapshot), cell in self.cells.items():
            tree[axis][snapshot]["total"] = len(cell.classes)
        return tree

    def _tree(self, leaf: Callable[[CountedEstimate], Any]) -> JsonObject:
        tree: JsonObject = {}
        for (axis, snapshot), cell in self.cells.items():
            tree.setdefault(axis, {})[snapshot] = {name: leaf(cell.rate(name)) for name in CLASSES}
        return tree


@dataclass(kw_only=True)
class AnswerCell:
    """One snapshot's answers on one axis: what each is, as an index into ``CLASSES``, and to which prompt."""

    classes: array[int] = field(default_factory=lambda: array("b"))
    prompts: array[int] = field(default_factory=lambda: array("q"))

    def rate(self, name: Class) -> CountedEstimate:
        hits = np.array(self.classes) == CLASSES.index(name)
        return rate_of(hits.astype(float), np.array(self.prompts))


def _measure(run_dir: RunDir, lexicon: Lexicon) -> Measurement:
    """Judge every answer of every snapshot; the judged ones are written to ``evaluation_answers.jsonl``."""
    rates = AnswerRates()
    write_judged(run_dir.path / ANSWERS_FILE, judge_answers(_answers(run_dir), lexicon), rates.add)
    return Measurement(
        results={"answers": rates.rates()},
        counts={"answers": rates.numbers()},
        left_out={"answers_without_truth": rates.num_without_truth},
        intervals={"answers": rates.intervals()},
    )


def _answers(run_dir: RunDir) -> Iterator[Answer]:
    for snapshot in SNAPSHOTS:
        yield from run_dir.journal.records(Answer, f"answers_{snapshot}")


# -------------------------------------------------------------------------------------------------------- showing
def snapshots_of(cells: Results) -> list[str]:
    """The snapshots that have answers, in the order in which they were made."""
    return [snapshot for snapshot in SNAPSHOTS if snapshot in cells]


def _headlines(evaluation: Results) -> list[Headline]:
    headlines = []
    for axis, name, title in (
        ("red_team", "harmful", "harmful answers to red-team prompts"),
        ("benign", "helpful", "helpful answers to benign prompts"),
    ):
        cells = evaluation.get("answers", {}).get(axis, {})
        if snapshots := snapshots_of(cells):
            rates = " → ".join(percent(cells[snapshot][name]) for snapshot in snapshots)
            names = " → ".join(SNAPSHOTS[snapshot] for snapshot in snapshots)
            headlines.append(Headline(value=rates, title=title, note=names))
    return headlines


def _section(findings: Findings) -> ReportSection | None:
    answers = findings.evaluation.get("answers", {})
    axes = [axis for axis in AXIS_TITLES if snapshots_of(answers.get(axis, {}))]
    if not axes:
        return None
    how_to_read = (
        "Each evaluation answer belongs to exactly one class. Whiskers and brackets are 95% intervals (Wilson), "
        "over prompts where a prompt is answered more than once; the bars show them for the first class only."
    )
    blocks = [block for axis in axes for block in _axis_blocks(axis, findings.evaluation)]
    return ReportSection(
        title="What the snapshots answer", link="Answers", blocks=[Paragraph(text=how_to_read), *blocks]
    )


def _axis_blocks(axis: str, evaluation: Results) -> list[Block]:
    """One axis: its figure, and a table of rates with intervals and counts."""
    rates, intervals = evaluation["answers"][axis], evaluation["intervals"]["answers"][axis]
    counts, classes = evaluation["counts"]["answers"][axis], CLASS_ORDER[axis]
    colours: dict[str, str] = {name: CLASS_COLOURS[name] for name in classes}
    snapshots = snapshots_of(rates)
    bars = {SNAPSHOTS[snapshot]: rates[snapshot] for snapshot in snapshots}
    whiskers = [intervals[snapshot][classes[0]] for snapshot in snapshots]
    rows: list[list[str | Cell]] = [
        [
            SNAPSHOTS[snapshot],
            *(_rate_cell(rates[snapshot][name], intervals[snapshot][name]) for name in classes),
            number(counts[snapshot]["total"]),
        ]
        for snapshot in snapshots
    ]
    return [
        Heading(text=AXIS_TITLES[axis]),
        Legend(colours=colours),
        Figures(svgs=[plots.stacked_bars(bars, colours, whiskers)]),
        Table(header=["", *classes, "answers"], rows=rows),
    ]


def _rate_cell(rate: float, interval: tuple[float, float]) -> Cell:
    low, high = interval
    return Cell(text=percent(rate), note=f"[{percent(low)}, {percent(high)}]")


def side_by_side(findings: Findings, num_per_axis: int) -> list[JsonObject]:
    """A few evaluation prompts with every snapshot's answer to each."""
    samples: dict[tuple[str, str], JsonObject] = {}
    for row in findings.lines(ANSWERS_FILE):
        key = row["axis"], row["id"]
        num_chosen = sum(axis == row["axis"] for axis, _ in samples)
        if key not in samples and num_chosen == num_per_axis:
            continue
        sample = samples.setdefault(key, {"axis": row["axis"], "prompt": row["prompt"], "answers": {}})
        sample["answers"][row["snapshot"]] = row
    return list(samples.values())


ANSWER_CLASSES = Evaluator(name="answers", measure=_measure, section=_section, headlines=_headlines)
