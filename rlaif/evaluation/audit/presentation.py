"""How the report and the command line show the result of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlaif.evaluation import plots
from rlaif.evaluation.audit.agreement import AMONG_PEOPLE
from rlaif.evaluation.audit.exchange import Audit
from rlaif.evaluation.findings import Findings, JsonObject
from rlaif.evaluation.formatting import number, percent, percent_interval
from rlaif.evaluation.section import Block, Cell, Figures, Paragraph, ReportSection, Table
from rlaif.statistics.estimates import Estimate

if TYPE_CHECKING:
    from rich.table import Table as RichTable


# ----------------------------------------------------------------------------------------------------- the report
def audit_section(findings: Findings) -> ReportSection | None:
    """How far people agree with the labels; None before any verdicts are imported."""
    audit = findings.audit
    if not audit:
        return None
    agreement = audit["agreement"]
    summary = (
        f"People judged {number(agreement['num_judged'])} of {number(audit['num_sampled'])} sampled pairs without "
        f"seeing the label. A tie counts half. For comparison, {AMONG_PEOPLE}."
    )
    figure = plots.reliability_plot(agreement["bins"], "share people prefer")
    blocks = [Paragraph(text=summary), _agreement_table(agreement), Figures(svgs=[figure]), *_stratum_blocks(agreement)]
    if audit["left_out"]:
        counts = ", ".join(f"{number(num)} {why}" for why, num in audit["left_out"].items())
        blocks.append(Paragraph(text=f"In no stratum (nothing to agree with): {counts}.", soft=True))
    return ReportSection(title="Audit", link="Audit", blocks=blocks)


def _agreement_table(agreement: JsonObject) -> Table:
    rates = {
        "agreement, sample": agreement["judged"],
        "agreement, weighted to all labels": agreement["all_labels"],
    }
    kappas = {
        "Cohen's kappa, sample": agreement["kappa_judged"],
        "Cohen's kappa, weighted to all labels": agreement["kappa_all_labels"],
    }
    rows = [
        *([name, percent(e["value"]), percent_interval((e["low"], e["high"]))] for name, e in rates.items()),
        *([name, *_kappa_cells(kappa)] for name, kappa in kappas.items()),
        ["expected calibration error, weighted to all labels", number(agreement["expected_calibration_error"]), ""],
    ]
    return Table(header=["", "value", "95% interval"], rows=rows)


def _kappa_cells(kappa: Mapping[str, float] | None) -> tuple[str, str]:
    if kappa is None:
        return "–", "undefined: both sides always made the same choice"
    return f"{kappa['value']:.2f}", f"{kappa['low']:.2f} – {kappa['high']:.2f}"


def _stratum_blocks(agreement: JsonObject) -> list[Block]:
    text = "By stratum: how sure the label is, and whether both orders chose the same answer."
    if agreement["coverage"] < 1:
        text += (
            " Weighted numbers leave out strata without a judged pair; "
            f"the others hold {percent(agreement['coverage'])} of the labels."
        )
    rows = [
        [stratum["name"], number(stratum["num_labels"]), number(stratum["num_judged"]), _rate(stratum["agreement"])]
        for stratum in agreement["strata"]
    ]
    return [Paragraph(text=text), Table(header=["stratum", "labels", "judged", "agreement"], rows=rows)]


def _rate(estimate: Mapping[str, float] | None) -> str | Cell:
    if estimate is None:
        return "–"
    note = f"[{percent(estimate['low'])}, {percent(estimate['high'])}]"
    return Cell(text=percent(estimate["value"]), note=note)


# ------------------------------------------------------------------------------------------ the command line
def audit_table(audit: Audit) -> RichTable:
    from rich.table import Table as RichTable

    agreement = audit.agreement
    caption = f"agreement: a tie counts half; {AMONG_PEOPLE}"
    table = RichTable("labels", "number", "judged", "agreement", "95% interval", caption=caption)
    for stratum in agreement.strata:
        counts = str(stratum.num_labels), str(stratum.num_judged)
        table.add_row(stratum.name, *counts, *_percents(stratum.agreement))
    table.add_section()
    table.add_row("sample", str(audit.num_sampled), str(agreement.num_judged), *_percents(agreement.judged))
    table.add_row("all, weighted", str(audit.num_labels), str(agreement.num_judged), *_percents(agreement.all_labels))
    return table


def audit_lines(audit: Audit) -> list[str]:
    """What the command line prints below the table."""
    agreement = audit.agreement
    error = agreement.expected_calibration_error
    lines = [
        f"Cohen's kappa: {_plain(agreement.kappa_judged)} on the sample, {_plain(agreement.kappa_all_labels)} weighted",
        f"expected calibration error of the labels' probabilities, weighted: {error:.3f}",
        f"not judged: {audit.num_sampled - agreement.num_judged} of {audit.num_sampled} sampled",
    ]
    if agreement.coverage < 1:
        lines.append(f"weighted: over {agreement.coverage:.1%} of the labels; the other strata have no judged pair")
    return lines


def _percents(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "–", "–"
    return percent(estimate.value), percent_interval((estimate.low, estimate.high))


def _plain(estimate: Estimate | None) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]" if estimate else "undefined"
