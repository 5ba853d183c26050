"""What do both orders, and reasoning, do for real judges? Six of them judged LLMBar's 419 pairs, whose better answer is
known, in both orders, plainly and after reasoning (Zeng et al., arXiv 2310.07641).

    python -m benchmarks.judges ../shared/data/llmbar_verdicts.jsonl --json benchmarks/results/judges.json

No model runs: the published verdicts go through this project's own labels and measures, as judgements with the letters'
probabilities at 0.99 and 0.01, because verdicts have none of their own. A verdict that is missing makes its order
invalid.

How to read it: ``right`` is the share of all pairs on which the gold answer is preferred, for the first order, for the
swapped one, and for both, where a pair that flips counts half. So ``both`` lies between the other two; what both orders
give is knowing which labels to trust: ``agreed`` is the share of pairs whose orders agree, ``right_agreed`` the share
of those that are right. ``reasoning`` compares the two modes of a judge over the same pairs. ``together`` is the mean
of plain and reasoned votes, ``panel`` that over all judges in one mode; a mean of exactly one half counts half.
Intervals are 95%; differences are paired.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.machine import publish
from rlaif.labels.quality import measure
from rlaif.records import Judgement, Preference, Status, Turn
from rlaif.statistics.estimates import mean_of, rate_of
from rlaif.tasks.labelling import prob_of

SURE = 0.99  #: the probability of the letter that a verdict names
MODES = ("plain", "reasoned")
Verdict = Mapping[str, Any]  #: a row of the file


def judgements(row: Verdict) -> tuple[Judgement, ...]:
    """Of the orders that have a verdict. The gold answer is answer_1, and order 1 has it in slot A."""
    found = []
    for name in ("first", "swapped"):
        gold_is_a = (row["gold_in_slot"] == "A") == (name == "first")
        if row[name] is not None:
            a_is_chosen = (row[name] == "chosen") == gold_is_a
            a, b = (SURE, 1 - SURE) if a_is_chosen else (1 - SURE, SURE)
            order: Literal[1, 2] = 1 if gold_is_a else 2
            found.append(Judgement(principle_id=row["mode"], order=order, logprob_a=math.log(a), logprob_b=math.log(b)))
    return tuple(found)


def label(row: Verdict) -> Preference:
    """The label of one pair by one judge."""
    asked = judgements(row)
    is_whole = len(asked) == 2
    return Preference(
        id=row["id"],
        source_file="llmbar",
        source_row=1,
        status=Status.OK if is_whole else Status.INVALID,
        error=None if is_whole else "an order has no verdict",
        seconds=0.0,
        seed=0,
        model_version=row["judge"],
        axis="helpful",
        prompt=(Turn(role="human", text=row["id"]),),
        prompt_ids=(),
        answer_1="gold",
        answer_2="other",
        token_ids_1=(),
        token_ids_2=(),
        policy_version=0,
        prob=prob_of(asked, "agree_or_tie") if is_whole else None,
        aggregation="agree_or_tie",
        judgements=asked if is_whole else (),
        constitution_hash="",
        template_version=row["mode"],
        truncated=False,
        gold=1.0,
    )


def rightness(row: Verdict, name: str) -> float:
    """Whether one order prefers the gold answer; an order without a verdict does not."""
    return float(row[name] == "chosen")


def both_right(row: Verdict) -> float:
    return (rightness(row, "first") + rightness(row, "swapped")) / 2


def figures(rows: Sequence[Verdict]) -> dict[str, Any]:
    """Of one judge in one mode."""
    agreed = [row for row in rows if row["first"] is not None and row["first"] == row["swapped"]]
    measures = measure(map(label, rows)).measures()
    return {
        "right_first": _rate([rightness(row, "first") for row in rows]),
        "right_swapped": _rate([rightness(row, "swapped") for row in rows]),
        "right_both": _rate([both_right(row) for row in rows]),
        "agreed": _rate([float(row in agreed) for row in rows]),
        "right_agreed": _rate([rightness(row, "first") for row in agreed]),
        **{name: _shown(measures[name]) for name in ("flip_rate", "flips_to_slot_a") if name in measures},
        "order_correlation": _shown(measures["order_correlation"]),
    }


def _rate(hits: Sequence[float]) -> dict[str, float]:
    return _shown(rate_of(np.array(hits), np.arange(len(hits))))


def _difference(ones: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """The mean of ``ones`` less that of ``others``, paired."""
    paired = np.array(ones) - np.array(others)
    return _shown(mean_of(paired, np.arange(len(paired))))


def _shown(estimate: Any) -> dict[str, float]:
    return {name: round(getattr(estimate, name), 4) for name in ("value", "low", "high")} | {"num": estimate.num}


def by_reasoning(plain: Sequence[Verdict], reasoned: Sequence[Verdict]) -> dict[str, Any]:
    """What reasoning changes for one judge: flips, over pairs that both modes judged twice, and right labels."""
    pairs = [(one, other) for one, other in zip(plain, reasoned, strict=True) if _is_whole(one) and _is_whole(other)]
    return {
        "flip_rate_rises_by": _difference([_flips(other) for _, other in pairs], [_flips(one) for one, _ in pairs]),
        "right_both_rises_by": _difference(list(map(both_right, reasoned)), list(map(both_right, plain))),
    }


def _is_whole(row: Verdict) -> bool:
    return row["first"] is not None and row["swapped"] is not None


def _flips(row: Verdict) -> float:
    return float(row["first"] != row["swapped"])


def votes_right(groups: Iterable[Sequence[Verdict]]) -> list[float]:
    """For each pair, whether the mean over all votes in both orders prefers the gold answer; a tie counts half."""
    return [float(np.sign(sum(_leaning(row) for row in rows)) + 1) / 2 for rows in groups]


def _leaning(row: Verdict) -> int:
    """Toward the gold answer, over both orders."""
    return sum((row[name] == "chosen") - (row[name] == "rejected") for name in ("first", "swapped"))


def study(rows: Sequence[Verdict]) -> dict[str, Any]:
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    of = {
        (judge, mode): [r for r in rows if (r["judge"], r["mode"]) == (judge, mode)]
        for judge in judges
        for mode in MODES
    }
    subsets = list(dict.fromkeys(row["id"].split("/")[0] for row in rows))
    return {
        "judges": {f"{judge}, {mode}": figures(of[judge, mode]) for judge, mode in of},
        "right_both_by_subset": {
            f"{judge}, {mode}": {
                s: _rate([both_right(row) for row in chosen if row["id"].startswith(f"{s}/")]) for s in subsets
            }
            for (judge, mode), chosen in of.items()
        },
        "reasoning": {judge: by_reasoning(of[judge, "plain"], of[judge, "reasoned"]) for judge in judges},
        "aggregations": {judge: _aggregations(of[judge, "plain"], of[judge, "reasoned"]) for judge in judges},
        "panel": {mode: _rate(votes_right(zip(*(of[judge, mode] for judge in judges), strict=True))) for mode in MODES},
    }


def _aggregations(plain: Sequence[Verdict], reasoned: Sequence[Verdict]) -> dict[str, Any]:
    """Ways to one label for a judge, the best by its value, and by how much it beats both orders of plain verdicts."""
    ways: dict[str, list[float]] = {
        f"{mode}, {name}": way(rows)
        for mode, rows in zip(MODES, (plain, reasoned), strict=True)
        for name, way in _WAYS.items()
    }
    ways["plain and reasoned together"] = votes_right(zip(plain, reasoned, strict=True))
    best = max(ways, key=lambda name: sum(ways[name]))
    return {
        **{name: _rate(hits) for name, hits in ways.items()},
        "best": best,
        "best_less_plain_both": _difference(ways[best], ways["plain, both"]),
    }


_WAYS: Mapping[str, Callable[[Sequence[Verdict]], list[float]]] = {
    "first": lambda rows: [rightness(row, "first") for row in rows],
    "swapped": lambda rows: [rightness(row, "swapped") for row in rows],
    "both": lambda rows: list(map(both_right, rows)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verdicts", type=Path, help="llmbar_verdicts.jsonl")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.verdicts.read_text(encoding="utf-8").splitlines()]
    publish(study(rows), options.json)


if __name__ == "__main__":
    main()
