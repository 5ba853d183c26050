"""``report.html``: one self-contained page about a run, and the short table that the command line ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlaif.evaluation import plots
from rlaif.evaluation.audit.agreement import AMONG_PEOPLE
from rlaif.evaluation.findings import Findings, Series, snapshots_of
from rlaif.evaluation.pages import page
from rlaif.evaluation.plots import SNAPSHOT_NAMES
from rlaif.records import Judgement
from rlaif.storage.record_schema import from_row
from rlaif.storage.run_dir import write_atomically
from rlaif.tasks.labelling import prob_by_order

if TYPE_CHECKING:
    from rich.table import Table

REPORT_TEMPLATE = "report.html.jinja"
NUM_CHAINS, NUM_COMPARISONS, NUM_PROMPTS_PER_AXIS, NUM_CAUSES = 3, 4, 3, 20
AXIS_TITLES = {"red_team": "Red-team prompts", "benign": "Benign prompts"}

#: Title of a chart, the metrics in it by name.
REINFORCEMENT_CURVES = {
    "Preference score": {
        "all": "reinforce/score/mean",
        "red team": "reinforce/score/red_team",
        "helpful": "reinforce/score/helpful",
    },
    "KL to SL-CAI, nats a response": {"kl": "reinforce/kl/sequence_mean"},
    "Response length (tokens)": {"length": "reinforce/response/length_mean"},
    "Value: explained variance": {"explained": "reinforce/value/explained_variance"},
    "Policy entropy (nats)": {"entropy": "reinforce/policy/entropy"},
    "Engine/learner gap: effective samples": {"ess": "reinforce/gap/effective_sample_size"},
    "Staleness of rollouts (batches)": {"mean": "reinforce/gap/staleness_mean"},
}
REFRESH_CURVES = {
    "Refresh: labels agreed with before they were learned": {"agreement": "refresh/fresh/accuracy"},
    "Refresh: mean score of the probes": {
        "before": "refresh/probes/mean_before",
        "after": "refresh/probes/mean_after",
    },
}
LOSS_CURVES = {
    "SFT loss": {"loss": "supervise/loss/step"},
    "PM loss: pretraining on votes": {"loss": "preference/pretraining/loss"},
    "PM loss: fit on labels and pairs": {"loss": "preference/fit/loss"},
}


def write_report(run_dir: Path) -> None:
    """Write ``report.html`` from what the run directory holds so far. Raises RunDirError when it is none."""
    found = Findings(run_dir)
    text = page(
        REPORT_TEMPLATE,
        _content(found),
        {"percent": percent, "number": number, "duration": duration, "percent_by_order": percent_by_order},
    )
    write_atomically(run_dir / "report.html", text)


def _content(found: Findings) -> dict[str, Any]:
    """What the template shows, in its order."""
    return {
        "name": found.path.resolve().name,
        "versions": found.manifest.get("versions", {}),
        "config_hash": found.manifest.get("config_hash"),
        "headlines": headlines(found.evaluation),
        "finished": found.finished,
        "rows": found.rows,
        "axes": _axes(found.evaluation),
        "labels": _labels(found),
        "audit": _audit(found.audit),
        "loss_charts": _charts(found, LOSS_CURVES, "optimizer step"),
        "preference_charts": _preference_charts(found),
        "preference_metrics": {k: v for k, v in found.last("preference").items() if "/reliability/" not in k},
        "reinforcement_charts": [
            *_charts(found, REINFORCEMENT_CURVES, "batch"),
            *_charts(found, REFRESH_CURVES, "version of the preference model"),
        ],
        "chains": found.records("revisions", NUM_CHAINS),
        "comparisons": found.records("preferences", NUM_COMPARISONS),
        "answers": found.answers_side_by_side(NUM_PROMPTS_PER_AXIS),
        "snapshot_names": SNAPSHOT_NAMES,
        "class_colours": plots.CLASS_COLOURS,
        "causes": found.quarantine_causes()[:NUM_CAUSES],
        "num_causes": NUM_CAUSES,
        "metrics": found.last(),
        "configuration": found.configuration,
    }


def headlines(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers that say whether it worked; empty before the evaluation."""
    tiles = []
    for axis, name, title in (
        ("red_team", "harmful", "harmful answers to red-team prompts"),
        ("benign", "helpful", "helpful answers to benign prompts"),
    ):
        cells = evaluation.get("answers", {}).get(axis, {})
        shown = snapshots_of(cells)
        if shown:
            path = " → ".join(percent(cells[snapshot][name]) for snapshot in shown)
            tiles.append(
                {"value": path, "title": title, "note": " → ".join(SNAPSHOT_NAMES[snapshot] for snapshot in shown)}
            )
    accuracy = evaluation.get("label_accuracy", {})
    if accuracy.get("debiased") is not None:
        note = f"one order alone: {percent(accuracy['first'])} and {percent(accuracy['second'])}"
        tiles.append({"value": percent(accuracy["debiased"]), "title": "of debiased labels are right", "note": note})
    return tiles


def _axes(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per axis: the figure and the table of rates with intervals and counts."""
    axes = []
    for axis, title in AXIS_TITLES.items():
        rates = evaluation.get("answers", {}).get(axis, {})
        shown = snapshots_of(rates)
        if not shown:
            continue
        intervals = evaluation["intervals"]["answers"][axis]
        axes.append(
            {
                "title": title,
                "figure": _markup(plots.answer_classes(axis, rates, intervals, shown)),
                "classes": plots.CLASS_ORDER[axis],
                "snapshots": shown,
                "rates": rates,
                "intervals": intervals,
                "counts": evaluation["counts"]["answers"][axis],
            }
        )
    return axes


def _labels(found: Findings) -> dict[str, Any]:
    evaluation, histogram = found.evaluation, found.label_histogram()
    calibration = evaluation.get("label_calibration")
    figures = [plots.label_histogram(histogram)] if any(histogram) else []
    if calibration:
        figures.append(plots.reliability_plot(calibration["bins"]))
    figures += _quality_figures(found.label_quality)
    return {
        "accuracy": {k: v for k, v in evaluation.get("label_accuracy", {}).items() if v is not None},
        "intervals": evaluation.get("intervals", {}).get("label_accuracy", {}),
        "total": evaluation.get("counts", {}).get("label_accuracy", {}).get("total", 0),
        "calibration": calibration,
        "quality": found.label_quality.get("overall", {}),
        "by_principle": found.label_quality.get("by_principle", {}),
        "cost": found.last("label/cost/"),
        "figures": [_markup(figure) for figure in figures],
    }


def _quality_figures(quality: Mapping[str, Any]) -> list[str]:
    if not quality:
        return []
    bias, length = quality["slot_bias_histogram"], quality["longer_preferred_by_ratio"]
    gold = quality["calibration"]
    return [
        plots.slot_bias_histogram(bias["centres"], bias["counts"]),
        plots.length_bias(length["upper_bounds"], length["measures"]),
        *([plots.reliability_plot(gold["bins"], outcome="share right by the gold labels")] if gold else []),
    ]


def _preference_charts(found: Findings) -> list[Any]:
    """What the preference model's scores say of the held-out pairs, against what the labels say."""
    bins = found.preference_bins()
    if not bins:
        return []
    return [_markup(plots.reliability_plot(bins, "share labelled better", "preference model's probability"))]


def _audit(audit: Mapping[str, Any]) -> dict[str, Any]:
    """What people said of the labels; empty before verdicts were imported."""
    if not audit:
        return {}
    agreement = audit["agreement"]
    return {
        **audit,
        "rates": {
            "agreement, sample": agreement["judged"],
            "agreement, weighted back to all labels": agreement["all_labels"],
        },
        "kappas": {
            "Cohen's kappa, sample": agreement["kappa_judged"],
            "Cohen's kappa, weighted back to all labels": agreement["kappa_all_labels"],
        },
        "among_people": AMONG_PEOPLE,
        "figure": _markup(plots.reliability_plot(agreement["bins"], "share people prefer")),
    }


def _charts(found: Findings, wanted: Mapping[str, Mapping[str, str]], xlabel: str) -> list[Any]:
    """A chart for each title of which a series with at least two points exists."""
    charts = []
    for title, keys in wanted.items():
        lines: dict[str, Series] = {name: found.metrics.get(key, []) for name, key in keys.items()}
        lines = {name: points for name, points in lines.items() if len(points) > 1}
        if lines:
            charts.append(_markup(plots.curves(title, lines, xlabel)))
    return charts


def _markup(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)


# ------------------------------------------------------------------------------------------ the terminal's table
def summary_table(run_dir: Path) -> Table:
    """What each snapshot answers, or, before the evaluation, what became of the rows."""
    found = Findings(run_dir)
    answers = found.evaluation.get("answers", {})
    return _answers_table(found.evaluation) if answers else _rows_table(found.rows)


def _answers_table(evaluation: Mapping[str, Any]) -> Table:
    from rich.table import Table

    cells = evaluation["answers"]
    shown = snapshots_of({snapshot: True for axis in cells.values() for snapshot in axis})
    table = Table("answers", *(SNAPSHOT_NAMES[snapshot] for snapshot in shown), caption=_accuracy_line(evaluation))
    for axis, title in AXIS_TITLES.items():
        for name in plots.CLASS_ORDER[axis] if axis in cells else ():
            rates = [cells[axis].get(snapshot, {}).get(name, 0.0) for snapshot in shown]
            if any(rates):
                table.add_row(f"{title}: {name}", *map(percent, rates))
    return table


def _accuracy_line(evaluation: Mapping[str, Any]) -> str | None:
    accuracy = evaluation.get("label_accuracy", {})
    if accuracy.get("debiased") is None:
        return None
    return "label accuracy: " + ", ".join(f"{way} {percent(rate)}" for way, rate in accuracy.items())


def _rows_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("rows", "in", "out", "quarantined")
    for kind, counts in rows.items():
        table.add_row(kind, *(str(counts[name]) for name in ("rows_in", "rows_out", "quarantined")))
    return table


# ---------------------------------------------------------------------------------------------- words for numbers
def percent(rate: float) -> str:
    return f"{100 * rate:.1f}%"


def number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def duration(seconds: float) -> str:
    """``83`` -> ``1 min 23 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def percent_by_order(judgements: Sequence[Mapping[str, Any]], order: Literal[1, 2]) -> str:
    """P(answer 1 better) by one order; a dash where the labeller was not asked."""
    if not judgements:
        return "–"
    return percent(prob_by_order([from_row(Judgement, judgement) for judgement in judgements], order))
