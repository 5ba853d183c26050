"""Elo: how strong the snapshots are against each other, by the judge's verdicts on pairs of their answers.

Every pair is judged in both orders, and each order is one match: the answer with the higher log-probability wins, two
equal answers tie. Strengths are those of a Bradley-Terry model with ties and an advantage of slot A, so that a judge
who prefers a slot does not blur them; SL-CAI is 0 (Bai et al., arXiv 2212.08073, section 3 and figure 2). On red-team
prompts the judge goes by the constitution, as for labels; on benign ones, by how helpful an answer is.

Departure from the paper: the judge is the feedback model, not people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlaif.evaluation import plots
from rlaif.evaluation.answers import AXIS_NAMES, AXIS_TITLES, SNAPSHOTS, snapshots_of
from rlaif.evaluation.evaluator import Evaluator, Headline, Measurement, Results
from rlaif.evaluation.findings import Findings
from rlaif.evaluation.formatting import number, percent
from rlaif.evaluation.section import Block, Cell, Figures, Paragraph, ReportSection, Table
from rlaif.ids import evaluated_prompt, match_of
from rlaif.miniature.lexicon import Lexicon
from rlaif.records import Axis, Preference
from rlaif.statistics.bradley_terry import ELO_PER_UNIT, Matches, elo_intervals, fitted_strengths
from rlaif.storage.run_dir import RunDir
from rlaif.tasks.labelling import log_odds

ANCHOR = "sl_cai"
_JUDGED_BY = {"red_team": "harmlessness", "benign": "helpfulness"}
_SEED = 0  #: of the resamples


def matches_kind(axis: Axis) -> str:
    return f"matches_{axis}"


@dataclass(kw_only=True)
class MatchBook:
    """Matches between ``players``, added label by label."""

    players: tuple[str, ...]
    num_unjudged: int = 0
    num_ties: int = 0
    rows: list[tuple[int, int, float, int]] = field(default_factory=list)  #: slots A and B, outcome, cluster
    clusters: dict[str, int] = field(default_factory=dict)  #: of prompts, numbered as they come

    def add(self, label: Preference) -> None:
        """Both orders of a label; one without a probability is counted and nothing else."""
        if label.prob is None:
            self.num_unjudged += 1
            return
        first, second, answer_id = match_of(label.id)
        one, other = self.players.index(first), self.players.index(second)
        cluster = self.clusters.setdefault(evaluated_prompt(answer_id), len(self.clusters))
        leads = [(judgement.order, log_odds(judgement)) for judgement in label.judgements] or [(1, 0.0), (2, 0.0)]
        for order, lead in leads:
            wins = 0.5 if lead == 0 else float(lead > 0)  # of ``one``
            self.num_ties += lead == 0
            self.rows.append((one, other, wins, cluster) if order == 1 else (other, one, 1 - wins, cluster))

    @property
    def matches(self) -> Matches:
        columns = list(zip(*self.rows, strict=True)) or [(), (), (), ()]
        return Matches(
            players=self.players,
            slot_a=np.array(columns[0], dtype=np.int64),
            slot_b=np.array(columns[1], dtype=np.int64),
            outcomes=np.array(columns[2], dtype=float),
            clusters=np.array(columns[3], dtype=np.int64),
        )


def match_book(players: Sequence[str], labels: Iterable[Preference]) -> MatchBook:
    book = MatchBook(players=tuple(players))
    for label in labels:
        book.add(label)
    return book


def anchor_of(players: Sequence[str]) -> str:
    """Whose Elo is 0."""
    return ANCHOR if ANCHOR in players else players[0]


def comparable_players(labels: Iterable[Preference]) -> list[str]:
    """The snapshots that a chain of matches with a verdict connects with the anchor; only they have a strength."""
    pairs = [match_of(label.id)[:2] for label in labels if label.prob is not None]
    players = [snapshot for snapshot in SNAPSHOTS if any(snapshot in pair for pair in pairs)]
    reached = {anchor_of(players)} if players else set()
    while new := {player for pair in pairs for player in pair if reached & set(pair)} - reached:
        reached |= new
    return [player for player in players if player in reached]


# ---------------------------------------------------------------------------------------------------- measuring
def _measure(run_dir: RunDir, lexicon: Lexicon) -> Measurement:
    results: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for axis, name in AXIS_NAMES.items():
        labels = list(run_dir.journal.records(Preference, matches_kind(axis)))
        players = comparable_players(labels)
        book = match_book(players, (label for label in labels if set(match_of(label.id)[:2]) <= set(players)))
        if not book.rows:
            continue
        anchor = anchor_of(players)
        strengths, estimates = fitted_strengths(book.matches, anchor), elo_intervals(book.matches, anchor, seed=_SEED)
        results[name] = {
            "elo": {player: estimate.value for player, estimate in zip(players, estimates, strict=True)},
            "slot_a": ELO_PER_UNIT * strengths.log_gamma,
        }
        intervals[name] = {"elo": {p: [e.low, e.high] for p, e in zip(players, estimates, strict=True)}}
        counts[name] = {
            "pairs": len(labels),
            "matches": len(book.rows),
            "ties": book.num_ties,
            "unjudged": sum(label.prob is None for label in labels),
        }
    if not results:
        return Measurement(results={})
    return Measurement(results={"elo": results}, counts={"elo": counts}, intervals={"elo": intervals})


# -------------------------------------------------------------------------------------------------------- showing
def _headlines(evaluation: Results) -> list[Headline]:
    headlines = []
    for axis, cell in evaluation.get("elo", {}).items():
        players = snapshots_of(cell["elo"])
        headlines.append(
            Headline(
                value=" → ".join(f"{cell['elo'][player]:+.0f}" for player in players),
                title=f"Elo, {_JUDGED_BY[axis]}, by the labeller",
                note=" → ".join(SNAPSHOTS[player] for player in players),
            )
        )
    return headlines


def _section(findings: Findings) -> ReportSection | None:
    elo = findings.evaluation.get("elo")
    if not elo:
        return None
    text = (
        "Pairs of the snapshots' answers to one prompt, judged by the labeller in both orders: on red-team prompts by "
        "the constitution, on benign ones by how helpful an answer is. SL-CAI is 0; 100 points more win 64% of "
        "matches. Small print: 95% intervals, over prompts. The labeller judges what it also taught: see the audit."
    )
    blocks: list[Block] = [Paragraph(text=text)]
    if len(elo) == 2:
        blocks.append(Figures(svgs=[_pareto(findings.evaluation)]))
    blocks += [_axis_table(axis, findings.evaluation) for axis in AXIS_TITLES if axis in elo]
    return ReportSection(title="Elo", link="Elo", blocks=blocks)


def _pareto(evaluation: Results) -> str:
    """Helpfulness against harmlessness, of the snapshots that have both."""
    values, intervals = evaluation["elo"], evaluation["intervals"]["elo"]
    points = {
        SNAPSHOTS[player]: tuple(
            (values[axis]["elo"][player], *intervals[axis]["elo"][player]) for axis in ("benign", "red_team")
        )
        for player in snapshots_of(values["red_team"]["elo"])
        if player in values["benign"]["elo"]
    }
    return plots.crosses(points, "Elo, helpfulness", "Elo, harmlessness")


def _axis_table(axis: str, evaluation: Results) -> Table:
    cell, counts = evaluation["elo"][axis], evaluation["counts"]["elo"][axis]
    intervals = evaluation["intervals"]["elo"][axis]["elo"]
    rows: list[list[str | Cell]] = [
        [
            SNAPSHOTS[player],
            Cell(text=f"{cell['elo'][player]:+.0f}", note="[{:+.0f}, {:+.0f}]".format(*intervals[player])),
        ]
        for player in snapshots_of(cell["elo"])
    ]
    rows.append(["advantage of slot A", f"{cell['slot_a']:+.0f}"])
    rows.append(["pairs judged", number(counts["pairs"] - counts["unjudged"])])
    rows.append(["matches that tied", percent(counts["ties"] / counts["matches"])])
    return Table(header=[f"{AXIS_TITLES[axis]}: {_JUDGED_BY[axis]}", "Elo"], rows=rows)


def _remarks(evaluation: Results) -> list[str]:
    remarks = []
    for axis, cell in evaluation.get("elo", {}).items():
        intervals = evaluation["intervals"]["elo"][axis]["elo"]
        shown = ", ".join(
            f"{SNAPSHOTS[player]} {cell['elo'][player]:+.0f}" + _interval(intervals[player])
            for player in snapshots_of(cell["elo"])
        )
        counts = evaluation["counts"]["elo"][axis]
        left_out = f"; {counts['unjudged']} of {counts['pairs']} pairs without a verdict" if counts["unjudged"] else ""
        remarks.append(f"Elo, {_JUDGED_BY[axis]}: {shown}{left_out}")
    return remarks


def _interval(interval: Sequence[float]) -> str:
    """Nothing for the anchor, whose Elo is 0 by definition."""
    low, high = interval
    return f" [{low:+.0f}, {high:+.0f}]" if low < high else ""


ELO = Evaluator(name="elo", measure=_measure, section=_section, headlines=_headlines, remarks=_remarks)
