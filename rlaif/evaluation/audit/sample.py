"""Which labels people are asked about: a sample stratified by confidence and by whether the two orders agree.

People and labels disagree most in rare strata (unsure labels, flips), so these get more rows than their share; the
sizes of all strata are kept, so that verdicts can be weighted to represent all labels. Labels without a probability
and labels of identical answers, for which the labeller was not asked, are left out and counted. A label's lot is a
hash of the seed and its id: the sample does not depend on the order of rows. Memory grows with the sample only.

Source: power allocation with exponent 1/2 (Bankier, The American Statistician 42, 1988), between proportional (best
for the whole) and equal (best for each stratum).

Departures from the source: 1. rows are allocated one at a time, to the stratum where N / n(n+1) is largest. So n grows
with the root of N, every stratum gets a first row before any gets a second, and none gets more rows than it has.
"""

from __future__ import annotations

import heapq
import hmac
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlaif.errors import RunDirError
from rlaif.evaluation.findings import JsonObject
from rlaif.records import Judgement, Turn
from rlaif.seeds import hash_of, seed_from
from rlaif.storage.record_schema import from_row
from rlaif.storage.tables import read_batches, tables_in
from rlaif.tasks.labelling import log_odds

READ_ROWS = 256  #: in memory

#: Upper edges of |prob - 0.5|, and the strata's names: the probability of the likelier answer.
CONFIDENCE = {0.1: "50-60%", 0.25: "60-75%", 0.4: "75-90%", 0.5: "90-100%"}

Side = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A sampled label's pair as the judge sees it; ``id`` is a keyed hash that reveals nothing."""

    id: str
    label_id: str
    stratum: str
    prob: float
    answer_1: Side
    conversation: tuple[Turn, ...]
    left: str
    right: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledLabel:
    """A label that was drawn."""

    label_id: str
    stratum: str
    prob: float


@dataclass(kw_only=True)
class Population:
    """Running sizes of the strata, and the ``max_rows`` labels with the lowest lots of each."""

    seed: int
    max_rows: int
    strata: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)  #: why -> number of labels without a choice to agree with
    lots: dict[str, list[tuple[int, str, float]]] = field(default_factory=dict)

    def add(self, row: JsonObject) -> None:
        if row["prob"] is None or not row["judgements"]:  # the labeller is not asked about identical answers
            self.left_out["identical answers" if row["prob"] is not None else row["status"]] += 1
            return
        stratum = stratum_of(row["prob"], [from_row(Judgement, judgement) for judgement in row["judgements"]])
        self.strata[stratum] += 1
        # Negated, so that the heap's first is the highest lot, which is the first to go.
        lot = -seed_from("audit", self.seed, row["id"]), row["id"], row["prob"]
        kept = self.lots.setdefault(stratum, [])
        if len(kept) < self.max_rows:
            heapq.heappush(kept, lot)
        else:
            heapq.heappushpop(kept, lot)

    def draw(self) -> list[SampledLabel]:
        return [
            SampledLabel(label_id=id, stratum=stratum, prob=prob)
            for stratum, num in allocate(self.strata, self.max_rows).items()
            for _, id, prob in heapq.nlargest(num, self.lots[stratum])
        ]


def draw_pairs(run_dir: Path, num_rows: int, seed: int, secret: bytes) -> tuple[Population, list[Pair]]:
    """The labels of a run by stratum, and a sample of at most ``num_rows``, ordered by id.

    Ids and sides are hashes keyed with ``secret``: a judge who knows the data, the seed and this code can compute
    neither. The order of ids mixes the strata. Labels are read twice, texts only the second time.
    """
    population = Population(seed=seed, max_rows=num_rows)
    for row in _label_rows(run_dir, ["id", "status", "prob", "judgements"]):
        population.add(row)
    drawn = {label.label_id: label for label in population.draw()}
    rows = _label_rows(run_dir, ["id", "prompt", "answer_1", "answer_2"])
    pairs = (_pair(drawn[row["id"]], row, seed, secret) for row in rows if row["id"] in drawn)
    return population, sorted(pairs, key=lambda pair: pair.id)


def _pair(label: SampledLabel, row: JsonObject, seed: int, secret: bytes) -> Pair:
    side: Side = "left" if keyed_hash(secret, "audit side", seed, label.label_id) % 2 else "right"
    answers = row["answer_1"], row["answer_2"]
    left, right = answers if side == "left" else answers[::-1]
    return Pair(
        id=pair_id(label.label_id, left, right, secret),
        label_id=label.label_id,
        stratum=label.stratum,
        prob=label.prob,
        answer_1=side,
        conversation=tuple(from_row(Turn, turn) for turn in row["prompt"]),
        left=left,
        right=right,
    )


def pair_id(label_id: str, left: str, right: str, secret: bytes) -> str:
    """A keyed hash of what the verdict is about, these texts on these sides: a sheet from another draw has other ids.

    The letters keep spreadsheets from reading it as a number.
    """
    return f"pair-{keyed_hash(secret, 'audit pair', label_id, left, right):016x}"


def keyed_hash(secret: bytes, *parts: object) -> int:
    """63 bits that depend on ``parts`` and cannot be computed without ``secret``."""
    return int.from_bytes(hmac.digest(secret, hash_of(*parts).digest(), "sha256")[:8], "big") >> 1


# ---------------------------------------------------------------------------------------------------- strata
def stratum_of(prob: float, judgements: Sequence[Judgement]) -> str:
    confidence = next(name for edge, name in CONFIDENCE.items() if abs(prob - 0.5) <= edge)
    return f"{confidence}, {_orders(judgements)}"


def _orders(judgements: Sequence[Judgement]) -> str:
    """Whether the winner changes with the order; with several principles, by their summed log-odds."""
    winners = {sum(log_odds(j) for j in judgements if j.order == order) > 0 for order in (1, 2)}
    return "orders agree" if len(winners) == 1 else "orders flip"


def allocate(strata: Mapping[str, int], num_rows: int) -> dict[str, int]:
    """How many of ``num_rows`` each stratum gets, in the order of their names; at most all of its rows."""
    nums = dict.fromkeys(sorted(strata), 0)
    for _ in range(min(num_rows, sum(strata.values()))):
        not_exhausted = [name for name, num in nums.items() if num < strata[name]]
        nums[max(not_exhausted, key=lambda name: _claim(strata[name], nums[name]))] += 1
    return nums


def _claim(num_labels: int, num_rows: int) -> tuple[bool, float]:
    """How strong a stratum's claim to another row is. Those without any come first, the largest first."""
    return num_rows == 0, num_labels / max(1, num_rows * (num_rows + 1))


# ---------------------------------------------------------------------------------------------------- labels
def _label_rows(run_dir: Path, columns: list[str]) -> Iterator[JsonObject]:
    """The run's labels, a batch at a time. Raises RunDirError when there are none, DamagedError where a table cannot be
    read."""
    paths = tables_in(run_dir, "preferences")
    if not paths:
        raise RunDirError(f"{run_dir}: no labels in preferences/; they are written at the end of the stage label")
    for path in paths:
        for batch in read_batches(path, READ_ROWS, columns):
            yield from batch.to_pylist()
