"""The report's figures, as SVG text to be embedded in the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_COLOURS = ("#2b3a55", "#c8443c", "#3f9a68", "#e3a63a")
SMALL = (3.35, 2.15)  #: inches; three fit side by side
INK, FAINT = "#3b4252", "#d7dce3"

Points = Sequence[tuple[float, float]]


def stacked_bars(
    bars: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], whiskers: Sequence[tuple[float, float]]
) -> str:
    """A bar for each name, its shares in the order of ``colours``; the whisker is the interval of the first share."""
    figure, ax = _figure(7.2, 0.55 + 0.42 * len(bars))
    for y, (shares, (low, high)) in enumerate(zip(bars.values(), whiskers, strict=True)):
        left = 0.0
        for name, colour in colours.items():
            ax.barh(y, shares[name], left=left, height=0.62, color=colour)
            left += shares[name]
        ax.plot([low, high], [y, y], color=INK, linewidth=1.4, marker="|", markersize=7)
    ax.set_yticks(range(len(bars)), list(bars))
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return _svg(figure)


def curves(title: str, lines: Mapping[str, Points], xlabel: str, scale: Literal["linear", "log"] = "linear") -> str:
    """A small chart of one or more series; a legend if there are several. On a log scale every x gets a tick."""
    figure, ax = _figure(*SMALL)
    for colour, (name, points) in zip(LINE_COLOURS, lines.items(), strict=False):
        steps, values = zip(*points, strict=True)
        ax.plot(steps, values, color=colour, linewidth=1.5, label=name, marker="." if len(points) < 15 else None)
    if len(lines) > 1:
        ax.legend(frameon=False, fontsize=7.5, loc="best", labelcolor=INK)
    ax.set_title(title, fontsize=9.5, loc="left", color=INK)
    ax.set_xlabel(xlabel, fontsize=8, color=INK)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    if scale == "log":
        ticks = sorted({x for points in lines.values() for x, _ in points})
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
    return _svg(figure)


def label_histogram(counts: Sequence[int]) -> str:
    """Labels by P(answer 1 better)."""
    figure, ax = _figure(*SMALL)
    width = 1 / len(counts)
    ax.bar([i * width for i in range(len(counts))], counts, width=width * 0.92, align="edge", color="#3f6fb0")
    ax.set_xlim(0, 1)
    ax.set_title("Labels by probability", fontsize=9.5, loc="left", color=INK)
    ax.set_xlabel("P(answer 1 better), debiased", fontsize=8, color=INK)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    return _svg(figure)


def slot_bias_histogram(centres: Sequence[float], counts: Sequence[int]) -> str:
    """How far each vote leans toward slot A, whichever answer is there."""
    figure, ax = _figure(*SMALL)
    ax.bar(centres, counts, width=0.46, color="#3f6fb0")
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_title("Slot bias of the votes", fontsize=9.5, loc="left", color=INK)
    ax.set_xlabel("(l1 - l2) / 2, log-odds toward slot A", fontsize=8, color=INK)
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    return _svg(figure)


def length_bias(upper_bounds: Sequence[float | None], measures: Sequence[Mapping[str, float]]) -> str:
    """How strongly the longer answer is preferred, by how much longer it is; whiskers are 95% intervals."""
    figure, ax = _figure(*SMALL)
    bins = [(bound, measure) for bound, measure in zip(upper_bounds, measures, strict=True) if measure["num"]]
    for x, (_, measure) in enumerate(bins):
        ax.plot([x, x], [measure["low"], measure["high"]], color=INK, linewidth=1.2)
        ax.plot(x, measure["value"], marker="o", markersize=5, color="#3f6fb0")
    ax.axhline(0.5, color=FAINT, linewidth=1)
    ax.set_xticks(range(len(bins)), ["more" if bound is None else f"to {bound:g}x" for bound, _ in bins])
    ax.set_ylim(0, 1)
    ax.set_title("P(longer answer preferred)", fontsize=9.5, loc="left", color=INK)
    ax.set_xlabel("how many times as long (characters)", fontsize=8, color=INK)
    return _svg(figure)


def reliability_plot(
    bins: Sequence[Mapping[str, float]], outcome: str = "share truly better", prediction: str = "label's probability"
) -> str:
    """Predicted probabilities against outcomes (the truth, or people's choices); a larger dot holds more labels."""
    figure, ax = _figure(*SMALL)
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    largest = max(bin["count"] for bin in bins)
    sizes = [12 + 90 * bin["count"] / largest for bin in bins]
    ax.scatter([b["mean_prob"] for b in bins], [b["frequency"] for b in bins], s=sizes, color="#3f6fb0", alpha=0.85)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.06, 1.06)
    ax.set_title("Reliability", fontsize=9.5, loc="left", color=INK)
    ax.set_xlabel(prediction, fontsize=8, color=INK)
    ax.set_ylabel(outcome, fontsize=8, color=INK)
    return _svg(figure)


def crosses(points: Mapping[str, Sequence[tuple[float, float, float]]], xlabel: str, ylabel: str) -> str:
    """Named points with their intervals: (value, low, high) in x, and in y."""
    figure, ax = _figure(SMALL[0] * 1.3, SMALL[1] * 1.4)
    for colour, (name, ((x, left, right), (y, low, high))) in zip(LINE_COLOURS, points.items(), strict=False):
        ax.plot([left, right], [y, y], color=colour, linewidth=1.2)
        ax.plot([x, x], [low, high], color=colour, linewidth=1.2)
        ax.plot(x, y, marker="o", markersize=5, color=colour)
        ax.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8, color=INK)
    ax.set_xlabel(xlabel, fontsize=8, color=INK)
    ax.set_ylabel(ylabel, fontsize=8, color=INK)
    ax.grid(color=FAINT, linewidth=0.6)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8, colors=INK, color=FAINT)
    return figure, ax


def _svg(figure: Figure) -> str:
    """The figure as an SVG element; text stays text, so that it can be selected and scales with the page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
