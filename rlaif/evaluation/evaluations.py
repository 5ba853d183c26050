"""The table of all evaluators, in the order of the report, and ``evaluation.json``, which holds what they measure.

The truth is the miniature's, so the numbers exist only for prompts from its lexicon; for other data the file says how
many answers and labels have no known truth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlaif.evaluation.answers import ANSWER_CLASSES
from rlaif.evaluation.elo import ELO
from rlaif.evaluation.evaluator import Evaluator, Results
from rlaif.evaluation.gold_scores import REWARD_HACKING
from rlaif.evaluation.labels import LABEL_ACCURACY
from rlaif.evaluation.preference_scores import PREFERENCE_SCORES
from rlaif.evaluation.suite_tables import SUITES
from rlaif.miniature.lexicon import Lexicon
from rlaif.storage.files import write_atomically
from rlaif.storage.run_dir import RunDir

EVALUATORS: tuple[Evaluator, ...] = (ANSWER_CLASSES, SUITES, ELO, PREFERENCE_SCORES, REWARD_HACKING, LABEL_ACCURACY)


def write_evaluation(run_dir: RunDir, lexicon: Lexicon) -> None:
    """Measure everything and write ``evaluation.json``."""
    evaluation = evaluate_run_dir(run_dir, lexicon)
    write_atomically(run_dir.path / "evaluation.json", json.dumps(evaluation, indent=2) + "\n")


def evaluate_run_dir(run_dir: RunDir, lexicon: Lexicon) -> Results:
    """The content of ``evaluation.json``: all results, then ``counts`` and ``intervals`` of the same shape."""
    parts = [evaluator.measure(run_dir, lexicon) for evaluator in EVALUATORS]
    counts = _joined([*(part.counts for part in parts), *(part.left_out for part in parts)])
    intervals = _joined([part.intervals for part in parts])
    return _joined([*(part.results for part in parts), {"counts": counts, "intervals": intervals}])


def _joined(parts: Sequence[Results]) -> Results:
    joined = {key: value for part in parts for key, value in part.items()}
    assert len(joined) == sum(map(len, parts)), "two evaluators write the same key"
    return joined
