"""How the report and the command line show test suites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlaif.data.finished_answers import FINISHED
from rlaif.evaluation.answers import AXIS_TITLES
from rlaif.evaluation.evaluator import Evaluator, Headline, Results
from rlaif.evaluation.findings import Findings
from rlaif.evaluation.formatting import number, percent
from rlaif.evaluation.section import Block, Cell, Heading, Paragraph, ReportSection, Table
from rlaif.evaluation.suites import EXAMINERS, GOLD_MEASURES, MAX_FLIPS, MAX_UNJUDGED, PLAYERS, measure_suites
from rlaif.records import REFUSAL_CLASSES

if TYPE_CHECKING:
    from rich.table import Table as RichTable

SUITE_TITLES: Mapping[str, str] = {
    "xstest": "XSTest",
    "strongreject": "StrongREJECT",
    "simple_safety_tests": "SimpleSafetyTests",
    "harmbench": "HarmBench",
    FINISHED: "Your answers",
}
_BY = {"rules": "by rules", "judge": "by the judge", "both": "by both"}
_OTHERS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "harm": ("harm (StrongREJECT, 0 to 1)", "{:.3f}".format),
    "evasive": ("refusals that are evasive", percent),
    "agreement": ("judge agrees with the rules", percent),
    "flip_rate": ("judge's class changes with the order", percent),
}
BY_CATEGORY = "not_complied_by_category"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """What is said of one snapshot's answers to a suite on one axis; ``results`` and ``intervals`` have one shape."""

    suite: str
    axis: str
    snapshot: str
    results: Results
    intervals: Results
    counts: Mapping[str, int]

    @property
    def name(self) -> str:
        return f"{AXIS_TITLES[self.axis]}, {self.player}"

    @property
    def player(self) -> str:
        return PLAYERS.get(self.snapshot, self.snapshot)

    def num_by(self, examiner: str) -> int:
        """Answers of which an examiner says something."""
        given = self.counts["answers"] - self.counts["unanswered"]
        return given if examiner == "rules" else given - self.counts["unjudged"]

    @property
    def examiners(self) -> list[str]:
        return [examiner for examiner in EXAMINERS if examiner in self.results]


def players_of(cells: Results) -> list[str]:
    """The snapshots that have answers, in the order in which they were made; models that only users name at the end."""
    return [*(name for name in PLAYERS if name in cells), *(name for name in cells if name not in PLAYERS)]


def _lines(evaluation: Results) -> Iterator[_Line]:
    """In the order of the tables."""
    tree = evaluation.get("suites", {})
    for suite in (name for name in SUITE_TITLES if name in tree):
        for axis in AXIS_TITLES:
            for snapshot in (name for name in players_of(tree[suite]) if axis in tree[suite][name]):
                results, intervals, counts = (
                    part["suites"][suite][snapshot][axis]
                    for part in (evaluation, evaluation["intervals"], evaluation["counts"])
                )
                yield _Line(
                    suite=suite, axis=axis, snapshot=snapshot, results=results, intervals=intervals, counts=counts
                )


def suite_headlines(evaluation: Results) -> list[Headline]:
    """Of the last snapshot: how often it does not comply, with prompts that are safe and with those that are not."""
    found = []
    for line in _lines(evaluation):
        if line.examiners and line.suite != FINISHED and line.snapshot == _last_snapshot(evaluation, line.suite):
            examiner = line.examiners[-1]
            what = "over-refusals of safe prompts" if line.axis == "benign" else "refusals of unsafe prompts"
            share = 1 - line.results[examiner]["compliance"]
            note = f"{line.player}, partial ones included, {_BY[examiner]}"
            found.append(Headline(value=percent(share), title=f"{SUITE_TITLES[line.suite]}: {what}", note=note))
    return found


def _last_snapshot(evaluation: Results, suite: str) -> str:
    return players_of(evaluation["suites"][suite])[-1]


def suite_remarks(evaluation: Results) -> list[str]:
    """What a reader must know of each cell: what was not answered or judged, and a judge that is no better than chance.
    Labels of people at the end, over all cells."""
    remarks = [remark for line in _lines(evaluation) for remark in _cell_remarks(line)]
    people = evaluation.get("suites_in_all", {})
    for examiner, found in people.get("agrees_with_people", {}).items():
        recalls = ", ".join(f"{name} {percent(found[name])}" for name in REFUSAL_CLASSES if name in found)
        guess = max(people["people"].values())
        worse = f"; calling all alike would be right on {percent(guess)}" if found["accuracy"] <= guess < 1 else ""
        remarks.append(f"{_BY[examiner]}, {percent(found['accuracy'])} agree with people's labels ({recalls}){worse}")
    return remarks


def _cell_remarks(line: _Line) -> Iterator[str]:
    where, counts, results = f"{SUITE_TITLES[line.suite]}, {line.name}", line.counts, line.results
    given = counts["answers"] - counts["unanswered"]
    judged = given - counts["unjudged"]
    if counts["unanswered"]:
        yield f"{where}: {counts['unanswered']} of {counts['answers']} prompts got no answer"
    if counts["unjudged"]:
        passed = "" if "judge" in results else "; too many: no rate is given in its name"
        yield f"{where}: the judge gave no verdict on {counts['unjudged']} of {given} answers{passed}"
    if counts["unrated"]:
        passed = "" if counts["unrated"] <= MAX_UNJUDGED * judged else "; too many: no harm is given"
        yield f"{where}: the judge did not rate the harm of {counts['unrated']} of {judged} answers{passed}"
    if results.get("flip_rate", 0.0) > MAX_FLIPS:
        flips = percent(results["flip_rate"])
        rates = "; it rates no harm" if line.axis == "red_team" else ""
        yield f"{where}: the judge's class changes with the order on {flips}: it hardly reads the answers{rates}"


# -------------------------------------------------------------------------------------------------------- showing
def _section(findings: Findings) -> ReportSection | None:
    lines = list(_lines(findings.evaluation))
    if not lines:
        return None
    text = (
        "Each answer does what was asked (compliance), objects and does a part of it (partial), or does nothing of it "
        "(refusal). Rules read the words of the answer only; the judge is the labeller, asked in three orders of the "
        "classes; both: the judge's probabilities, weighted by how often the rules are right. Answers that the judge "
        "gave no verdict on are in the rates by rules only. Small print: 95% intervals, over prompts."
    )
    blocks: list[Block] = [Paragraph(text=text)]
    for suite in dict.fromkeys(line.suite for line in lines):
        blocks += [Heading(text=SUITE_TITLES[suite]), *_suite_blocks([line for line in lines if line.suite == suite])]
    blocks += [Paragraph(text=remark, soft=True) for remark in suite_remarks(findings.evaluation)]
    return ReportSection(title="Test suites", link="Suites", blocks=blocks)


def _suite_blocks(lines: Sequence[_Line]) -> Iterator[Block]:
    classes = [_class_row(line, examiner) for line in lines for examiner in line.examiners]
    yield Table(header=["", *REFUSAL_CLASSES, "answers"], rows=classes)
    others: list[list[str | Cell]] = [
        [f"{line.name}: {title}", _cell(line.results[key], line.intervals[key], shown)]
        for line in lines
        for key, (title, shown) in _OTHERS.items()
        if key in line.results
    ]
    if others:
        yield Table(rows=others)
    people = [_people_row(line, examiner) for line in lines for examiner in line.results.get("agrees_with_people", {})]
    if people:
        yield Table(header=["agrees with people's labels", *GOLD_MEASURES], rows=people)
    categories: list[list[str | Cell]] = [
        [f"{line.name}, {_BY[line.examiners[-1]]}: {category}", _cell(share, line.intervals[BY_CATEGORY][category])]
        for line in lines
        for category, share in line.results.get(BY_CATEGORY, {}).items()
    ]
    if categories:
        yield Table(header=["not complied with, by category", ""], rows=categories)


def _class_row(line: _Line, examiner: str) -> list[str | Cell]:
    shares, intervals = line.results[examiner], line.intervals[examiner]
    cells = (_cell(shares[name], intervals[name]) for name in REFUSAL_CLASSES)
    return [f"{line.name}, {_BY[examiner]}", *cells, number(line.num_by(examiner))]


def _people_row(line: _Line, examiner: str) -> list[str | Cell]:
    shares, intervals = (part["agrees_with_people"][examiner] for part in (line.results, line.intervals))
    cells = (_cell(shares[name], intervals[name]) if name in shares else "" for name in GOLD_MEASURES)
    return [f"{line.name}, {_BY[examiner]}", *cells]


def _cell(value: float, interval: tuple[float, float], shown: Callable[[float], str] = percent) -> Cell:
    low, high = interval
    return Cell(text=shown(value), note=f"[{shown(low)}, {shown(high)}]")


def suite_table(evaluation: Results) -> RichTable:
    """For the command line: every cell by every examiner."""
    from rich.table import Table

    table = Table("suite", "by", *REFUSAL_CLASSES, "harm", "answers")
    for line in _lines(evaluation):
        for examiner in line.examiners:
            shares = (percent(line.results[examiner][name]) for name in REFUSAL_CLASSES)
            harm = f"{line.results['harm']:.3f}" if examiner == "judge" and "harm" in line.results else ""
            name = f"{SUITE_TITLES[line.suite]}, {line.name}"
            table.add_row(name, _BY[examiner], *shares, harm, number(line.num_by(examiner)))
    return table


SUITES = Evaluator(
    name="suites", measure=measure_suites, section=_section, headlines=suite_headlines, remarks=suite_remarks
)
