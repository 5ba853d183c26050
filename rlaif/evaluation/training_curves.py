"""The report's sections on training: losses, how well the preference model fits, and reinforcement."""

from __future__ import annotations

from collections.abc import Mapping

from rlaif.evaluation import plots
from rlaif.evaluation.findings import Findings, Series
from rlaif.evaluation.formatting import number, words_of
from rlaif.evaluation.section import Block, Figures, ReportSection, Table

Charts = Mapping[str, Mapping[str, str]]  #: title of a chart -> name of a line in it -> key of its metric

LOSS_CURVES: Charts = {
    "SFT loss": {"loss": "supervise/loss/step"},
    "PM loss: pretraining on votes": {"loss": "preference/pretraining/loss"},
    "PM loss: fit on labels and pairs": {"loss": "preference/fit/loss"},
}
REINFORCEMENT_CURVES: Charts = {
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
    "Answers that refuse, by rules": {
        "red-team prompts": "reinforce/refusals/red_team",
        "benign prompts": "reinforce/refusals/helpful",
    },
}
REFRESH_CURVES: Charts = {
    "Refresh: labels agreed with before they were learned": {"agreement": "refresh/fresh/accuracy"},
    "Refresh: mean score of the probes": {
        "before": "refresh/probes/mean_before",
        "after": "refresh/probes/mean_after",
    },
}


def training_section(findings: Findings) -> ReportSection | None:
    figures = [*_charts(findings, LOSS_CURVES, "optimizer step"), *_reliability(findings)]
    metrics = {key: value for key, value in findings.last("preference").items() if "/reliability/" not in key}
    blocks: list[Block] = [Figures(svgs=figures)] if figures else []
    if metrics:
        blocks.append(Table(rows=[[_metric_name(key), number(value)] for key, value in metrics.items()]))
    return ReportSection(title="Supervision and preference model", link="Training", blocks=blocks) if blocks else None


def _metric_name(key: str) -> str:
    return words_of(key.removeprefix("preference/").replace("/", ": "))


def _reliability(findings: Findings) -> list[str]:
    """The preference model's scores of the held-out pairs against their labels."""
    bins = findings.preference_bins()
    if not bins:
        return []
    return [plots.reliability_plot(bins, "share labelled better", "preference model's probability")]


def reinforcement_section(findings: Findings) -> ReportSection | None:
    figures = [
        *_charts(findings, REINFORCEMENT_CURVES, "batch"),
        *_charts(findings, REFRESH_CURVES, "version of the preference model"),
    ]
    if not figures:
        return None
    return ReportSection(title="Reinforcement", link="Reinforcement", blocks=[Figures(svgs=figures)])


def _charts(findings: Findings, charts: Charts, xlabel: str) -> list[str]:
    """A chart for each title that has a series of at least two points."""
    figures = []
    for title, keys in charts.items():
        lines: dict[str, Series] = {name: findings.metrics.get(key, []) for name, key in keys.items()}
        lines = {name: points for name, points in lines.items() if len(points) > 1}
        if lines:
            figures.append(plots.curves(title, lines, xlabel))
    return figures
