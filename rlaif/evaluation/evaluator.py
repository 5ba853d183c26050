"""An evaluator: what it measures in a run, and how the report and the command line show the results.

``rlaif.evaluation.evaluations`` holds the table of all evaluators. ``evaluation.json``, the report and the command
line's summary are made by going through that table, so a new evaluator is one module and one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.evaluation.findings import Findings
from rlaif.evaluation.section import ReportSection
from rlaif.miniature.lexicon import Lexicon
from rlaif.storage.run_dir import RunDir

Results = Mapping[str, Any]  #: the content of evaluation.json, or a part of it: plain JSON values


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One evaluator's part of ``evaluation.json``.

    ``results`` become top-level keys of the file. ``counts`` and ``left_out`` are merged into its ``counts``,
    ``intervals`` (95%) into its ``intervals``; use the key and the shape of the result that they belong to.
    """

    results: Results
    counts: Results = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    intervals: Results = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One of the few numbers at the top of the report that say whether the run worked."""

    value: str
    title: str
    note: str


def _nothing(results: Results) -> Sequence[Any]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Four functions; the last two are optional.

    Attributes:
        name: the anchor of its section in the report.
        measure: runs once, in the stage ``evaluate``. Reads the journal; may write files into the run directory.
        section: its section of the report, or None while there is nothing to show. Like the next two, it is also
            called before the evaluation, when ``findings.evaluation`` is empty.
        headlines: from the content of ``evaluation.json``.
        remarks: lines below the command line's summary, from the same.
    """

    name: str
    measure: Callable[[RunDir, Lexicon], Measurement]
    section: Callable[[Findings], ReportSection | None]
    headlines: Callable[[Results], Sequence[Headline]] = _nothing
    remarks: Callable[[Results], Sequence[str]] = _nothing
