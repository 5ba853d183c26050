"""What both preference models think of the snapshots' answers, where there are two (``preference_model.test_split``).

The policy was trained against the first one; the second was fitted on the other half of the pairs and never used. A
policy that gains much by the first and little by the second has learned the first one's errors. Scores of two models
have different scales, so gains are in standard deviations of the scores that a model gives to SL-CAI's answers.
Source: train and test preference models, HH (arXiv 2204.05862), section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from rlaif.evaluation.answers import AXIS_NAMES, AXIS_TITLES, SNAPSHOTS
from rlaif.evaluation.evaluator import Evaluator, Measurement, Results
from rlaif.evaluation.findings import Findings
from rlaif.evaluation.formatting import number
from rlaif.evaluation.section import Heading, Paragraph, ReportSection, Table
from rlaif.ids import evaluated_prompt
from rlaif.miniature.lexicon import Lexicon
from rlaif.records import AnswerScore
from rlaif.statistics.estimates import Cases
from rlaif.storage.run_dir import RunDir

#: The models of the run that score answers, and what people call them.
SCORED_BY: Mapping[str, str] = {
    "preference_model": "the preference model",
    "preference_model_test": "the test preference model",
}
_T = TypeVar("_T")
_BEFORE, _AFTER = "sl_cai", "rl_cai"

Scores = dict[str, dict[str, Cases]]  #: axis -> snapshot -> scores


def scores_kind(model: str, snapshot: str) -> str:
    """The kind of the rows that hold what ``model`` thinks of a snapshot's answers."""
    return f"scores_{snapshot}_by_{model}"


# ------------------------------------------------------------------------------------------------------ measuring
def _measure(run_dir: RunDir, lexicon: Lexicon) -> Measurement:
    scores = {model: _scores(run_dir, model) for model in SCORED_BY}
    means = {model: _each(by_axis, lambda cases: cases.mean().value) for model, by_axis in scores.items() if by_axis}
    if not means:
        return Measurement(results={})
    gains = {model: {axis: _gain(cell) for axis, cell in scores[model].items()} for model in means}
    return Measurement(
        results={"preference_scores": means, "preference_gains": gains},
        counts={"preference_scores": {model: _each(scores[model], lambda cases: cases.num) for model in means}},
        intervals={"preference_scores": {model: _each(scores[model], _interval) for model in means}},
    )


def _scores(run_dir: RunDir, model: str) -> Scores:
    scores: Scores = {}
    for snapshot in SNAPSHOTS:
        for made in run_dir.journal.records(AnswerScore, scores_kind(model, snapshot)):
            cell = scores.setdefault(AXIS_NAMES[made.axis], {})
            cell.setdefault(snapshot, Cases()).add(made.score, evaluated_prompt(made.id))
    return scores


def _each(scores: Scores, figure: Callable[[Cases], _T]) -> dict[str, dict[str, _T]]:
    return {axis: {snapshot: figure(cases) for snapshot, cases in cell.items()} for axis, cell in scores.items()}


def _interval(cases: Cases) -> list[float]:
    mean = cases.mean()
    return [mean.low, mean.high]


def _gain(cell: Mapping[str, Cases]) -> float | None:
    """Of RL-CAI over SL-CAI; None where there is nothing to measure it by."""
    if _BEFORE not in cell or _AFTER not in cell:
        return None
    spread = float(np.std(cell[_BEFORE].values))
    return (cell[_AFTER].mean().value - cell[_BEFORE].mean().value) / spread if spread else None


# -------------------------------------------------------------------------------------------------------- showing
def _section(findings: Findings) -> ReportSection | None:
    means = findings.evaluation.get("preference_scores")
    if not means:
        return None
    text = (
        "Mean scores of the answers to held-out prompts. Reinforcement saw the scores of the first model only; the "
        "second was fitted on the other half of the pairs. A gain is that of RL-CAI over SL-CAI, in standard "
        "deviations of the scores of SL-CAI's answers: where it is much smaller by the second model, the policy has "
        "learned the first one's errors."
    )
    blocks = [Heading(text="Preference models"), Paragraph(text=text), _table(findings.evaluation)]
    return ReportSection(title="Scores of the answers", link="Scores", blocks=blocks)


def _table(evaluation: Results) -> Table:
    means, gains = evaluation["preference_scores"], evaluation["preference_gains"]
    rows = [
        [f"{AXIS_TITLES[axis]}, by {SCORED_BY[model]}", *_cells(cell), _shown(gains[model][axis])]
        for axis in AXIS_TITLES
        for model, by_axis in means.items()
        for cell in ([by_axis[axis]] if axis in by_axis else [])
    ]
    return Table(header=["", *SNAPSHOTS.values(), "gain"], rows=rows)


def _cells(cell: Mapping[str, float]) -> list[str]:
    return [_shown(cell.get(snapshot)) for snapshot in SNAPSHOTS]


def _shown(value: float | None) -> str:
    return "" if value is None else number(value)


PREFERENCE_SCORES = Evaluator(name="scores", measure=_measure, section=_section)
