"""``report.html``: one self-contained page about a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlaif.errors import StorageError
from rlaif.evaluation.answers import CLASS_COLOURS, SNAPSHOTS, side_by_side
from rlaif.evaluation.audit.presentation import audit_section
from rlaif.evaluation.evaluations import EVALUATORS
from rlaif.evaluation.findings import Findings, show
from rlaif.evaluation.formatting import duration, number, percent
from rlaif.evaluation.pages import page
from rlaif.evaluation.section import ReportSection
from rlaif.evaluation.training_curves import reinforcement_section, training_section
from rlaif.prompting.questions import SPEAKERS
from rlaif.records import Judgement
from rlaif.storage.files import write_atomically
from rlaif.storage.record_schema import from_row
from rlaif.tasks.labelling import prob_by_order

REPORT_TEMPLATE = "report.html.jinja"
NUM_CHAINS, NUM_COMPARISONS, NUM_PROMPTS_PER_AXIS, NUM_CAUSES = 3, 4, 3, 20


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write ``report.html`` from what the run directory holds so far, or write it to ``out``; returns where it is.

    Raises RunDirError when it is no run directory, DamagedError for a file that cannot be shown, StorageError where the
    report cannot be written.
    """
    place, text = out or run_dir / "report.html", report_text(run_dir)
    try:
        write_atomically(place, text)
    except OSError as error:
        fix = "choose another --out" if out else "name a place for the report with --out"
        raise StorageError(f"{place}: cannot be written: {error.strerror}; {fix}") from error
    return place


def report_text(run_dir: Path) -> str:
    """The page. Raises RunDirError and DamagedError as ``write_report`` does."""
    return show(run_dir, lambda findings: page(REPORT_TEMPLATE, _content(findings), FILTERS))


def _content(findings: Findings) -> dict[str, Any]:
    """What the template shows, in its order."""
    return {
        "name": findings.path.resolve().name,
        "versions": findings.manifest.get("versions", {}),
        "config_hash": findings.manifest.get("config_hash"),
        "headlines": [tile for evaluator in EVALUATORS for tile in evaluator.headlines(findings.evaluation)],
        "finished": findings.finished,
        "rows": findings.rows,
        "sections": _sections(findings),
        "speakers": SPEAKERS,
        "chains": findings.records("revisions", NUM_CHAINS),
        "comparisons": findings.records("preferences", NUM_COMPARISONS),
        "answers": side_by_side(findings, NUM_PROMPTS_PER_AXIS),
        "snapshot_names": SNAPSHOTS,
        "class_colours": CLASS_COLOURS,
        "causes": findings.quarantine_causes()[:NUM_CAUSES],
        "num_causes": NUM_CAUSES,
        "metrics": findings.last(),
        "configuration": findings.configuration,
    }


def _sections(findings: Findings) -> dict[str, ReportSection]:
    """By anchor; those with nothing to show are left out."""
    sections = {
        **{evaluator.name: evaluator.section(findings) for evaluator in EVALUATORS},
        "audit": audit_section(findings),
        "training": training_section(findings),
        "reinforcement": reinforcement_section(findings),
    }
    return {anchor: section for anchor, section in sections.items() if section}


def percent_by_order(judgements: Sequence[Mapping[str, Any]], order: Literal[1, 2]) -> str:
    """P(answer 1 better) by one order; a dash where the labeller was not asked."""
    if not judgements:
        return "–"
    return percent(prob_by_order([from_row(Judgement, judgement) for judgement in judgements], order))


FILTERS: Mapping[str, Callable[..., str]] = {
    "percent": percent,
    "number": number,
    "duration": duration,
    "percent_by_order": percent_by_order,
}
