"""The command line's tables: what a run achieved, and how good a set of labels is and what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.evaluation.answers import AXIS_TITLES, CLASS_ORDER, SNAPSHOTS, snapshots_of
from rlaif.evaluation.evaluations import EVALUATORS
from rlaif.evaluation.evaluator import Results
from rlaif.evaluation.findings import Findings, JsonObject, show
from rlaif.evaluation.formatting import percent, words_of
from rlaif.evaluation.suite_tables import suite_headlines, suite_table

if TYPE_CHECKING:
    from rich.table import Table

#: What the measures of ``label_quality.json`` are called.
QUALITY_TITLES = {
    "flip_rate": "winner changes with the order",
    "flips_to_slot_a": "... in favour of slot A",
    "slot_bias": "slot bias, log-odds to A",
    "order_gap": "|p1 - p2|",
    "order_correlation": "correlation of both orders",
    "longer_preferred": "longer answer preferred",
    "gold_accuracy_first": "agrees with gold, first order only",
    "gold_accuracy_second": "agrees with gold, second order only",
    "gold_accuracy": "agrees with gold, both orders",
}

#: Formats of the measures that are not percentages.
QUALITY_FORMS = {"slot_bias": "{:+.2f}", "order_correlation": "{:.2f}"}


# ---------------------------------------------------------------------------------------------------------- a run
def summary_table(run_dir: Path) -> Table:
    """What each snapshot answers, by the truth or to test suites; before the evaluation, what became of the rows."""
    return show(run_dir, _summary)


def _summary(findings: Findings) -> Table:
    evaluation = findings.evaluation
    told: list[str] = []
    if evaluation.get("answers"):
        table = _answers_table(evaluation)
        told = [f"{headline.title}: {headline.value} ({headline.note})" for headline in suite_headlines(evaluation)]
    elif evaluation.get("suites"):
        table = suite_table(evaluation)
    else:
        return _rows_table(findings.rows)
    remarks = [remark for evaluator in EVALUATORS for remark in evaluator.remarks(evaluation)]
    table.caption = "\n".join([*told, *remarks, *_left_out(findings.rows)]) or None
    return table


def _left_out(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Rows of test suites, or of finished answers, that could not be read or failed."""
    for kind, counts in rows.items():
        lost, num = counts["quarantined"], counts["rows_in"]
        if lost and kind.startswith(("suite_", "finished_answers", "refusal_verdicts", "harm_verdicts")):
            yield f"{words_of(kind)}: {lost} of {num} rows quarantined (quarantine.jsonl)"


def _answers_table(evaluation: Results) -> Table:
    from rich.table import Table

    cells = evaluation["answers"]
    snapshots = snapshots_of({snapshot: True for axis in cells.values() for snapshot in axis})
    table = Table("answers", *(SNAPSHOTS[snapshot] for snapshot in snapshots))
    for axis, title in AXIS_TITLES.items():
        for name in CLASS_ORDER[axis] if axis in cells else ():
            rates = [cells[axis].get(snapshot, {}).get(name, 0.0) for snapshot in snapshots]
            if any(rates):
                table.add_row(f"{title}: {name}", *map(percent, rates))
    return table


def _rows_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("rows", "in", "out", "quarantined", "shortened")
    for kind, counts in rows.items():
        table.add_row(kind, *(str(counts.get(name, 0)) for name in ("rows_in", "rows_out", "quarantined", "cut")))
    return table


# --------------------------------------------------------------------------------------------------------- labels
def label_table(run_dir: Path) -> Table:
    """Counts, measures, cost. ``run_dir`` holds a ``label_quality.json``."""
    from rich.table import Table

    quality = json.loads((run_dir / "label_quality.json").read_text(encoding="utf-8"))
    table = Table("labels", "", "95% interval")
    for status, num in quality["statuses"].items():
        table.add_row(status, f"{num:,}", "")
    rows = Findings(run_dir).rows
    for kind, title in (("pairs", "quarantined rows of the file"), ("preferences", "quarantined by the labeller")):
        table.add_row(title, f"{rows.get(kind, {}).get('quarantined', 0):,}", "")
    table.add_row("judged on a shortened dialogue", f"{rows.get('preferences', {}).get('cut', 0):,}", "")
    for name, title in QUALITY_TITLES.items():
        if name in quality["overall"]:
            table.add_row(title, *_value_and_interval(name, quality["overall"][name]))
    for name, value in Findings(run_dir).last("label/cost/").items():
        table.add_row(words_of(name.rpartition("/")[2]), f"{value:,.4g}", "")
    return table


def _value_and_interval(name: str, measure: JsonObject) -> tuple[str, str]:
    form = QUALITY_FORMS.get(name, "{:.1%}")
    return form.format(measure["value"]), f"{form.format(measure['low'])} to {form.format(measure['high'])}"
