"""How often the policy declines while it is trained: on red-team prompts it should, on benign ones it should not.

By rules alone (``rules``), so that it costs no model, on any data. It is watched, never trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rlaif.evaluation.refusals.rules import refusal_class
from rlaif.prompting.thoughts import without_thoughts
from rlaif.records import Axis, RolloutSample


def refusal_metrics(samples: Iterable[RolloutSample]) -> dict[str, float]:
    """``reinforce/refusals/AXIS``: the share of a batch's answers that refuse, wholly or in part; empty ones and
    unfinished thoughts are left out, and so is an axis without answers."""
    answers: Counter[Axis] = Counter()
    refusals: Counter[Axis] = Counter()
    for sample in samples:
        text = without_thoughts(sample.completion.text)
        found = refusal_class(sample.prompt[-1].text, text) if text else None
        if found is not None:
            answers[sample.axis] += 1
            refusals[sample.axis] += found != "compliance"
    return {f"reinforce/refusals/{axis}": refusals[axis] / num for axis, num in answers.items()}
