"""Matches. Consumes: the snapshots' answers to held-out prompts. Waits for: the labeller's engines. Produces:
matches_red_team, matches_helpful in the journal, each a pair of answers to one prompt, labelled in both orders;
``evaluation.elo`` makes strengths of them.

Who meets next is chosen by what is known least (``statistics.pairing``), from the labels so far, in rounds; so a run
that is resumed chooses the same."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from itertools import combinations

from rlaif.constitution.principles import Constitution, Principle
from rlaif.evaluation.answers import SNAPSHOTS
from rlaif.evaluation.elo import anchor_of, match_book, matches_kind
from rlaif.ids import match_id
from rlaif.records import Answer, Axis, Comparison, Preference, Status
from rlaif.seeds import seed_from
from rlaif.stages.bookkeeping import Recording, record
from rlaif.stages.label import label_task
from rlaif.stages.run import Run
from rlaif.stages.user_data import AXES
from rlaif.statistics.bradley_terry import strengths_so_far
from rlaif.statistics.pairing import next_pairs

NUM_ROUNDS = 8
#: What helpful answers are judged by where the constitution says nothing of helpfulness.
HELPFULNESS = Principle(
    id="helpfulness",
    category="helpfulness",
    source="Bai et al. (arXiv 2204.05862), section 2",
    comparison="Which of these answers is more helpful to the human, and does more of what was asked?",
)
_Answers = Mapping[str, Mapping[str, Answer]]  #: by snapshot and id


async def play_matches(run: Run) -> None:
    if run.config.evaluation.matches:
        for axis in AXES:
            await _play(run, axis)


async def _play(run: Run, axis: Axis) -> None:
    answers = {name: found for name in SNAPSHOTS if (found := _answers(run, name, axis))}
    players = tuple(answers)
    cards = {pair: _card(run, answers, *pair) for pair in combinations(players, 2)}
    budget = min(run.config.evaluation.matches, sum(map(len, cards.values())))
    chosen: list[Comparison] = []
    while len(chosen) < budget:
        num = min(budget - len(chosen), math.ceil(budget / NUM_ROUNDS))
        chosen += _next(run, axis, players, cards, chosen, num)
        is_played = not any(True for _ in run.run_dir.journal.pending(matches_kind(axis), chosen))
        if not is_played or len(chosen) == budget:  # rounds that a resumed run has played are not gone over again
            await record(run, _recording(run, axis, chosen))


def _next(
    run: Run,
    axis: Axis,
    players: tuple[str, ...],
    cards: Mapping[tuple[str, str], list[Comparison]],
    chosen: list[Comparison],
    num: int,
) -> list[Comparison]:
    """The next ``num`` pairs of answers, taken from ``cards``. A pair of players that has met on all its prompts is
    passed over; whoever is next on the list meets in its place."""
    ids = {comparison.id for comparison in chosen}
    played = (label for label in run.run_dir.journal.records(Preference, matches_kind(axis)) if label.id in ids)
    strengths = strengths_so_far(match_book(players, played).matches, anchor_of(players))
    wanted = [(players[i], players[j]) for i, j in next_pairs(strengths, num)]
    found: list[Comparison] = []
    for pair in wanted:
        card = cards[pair] or max(cards.values(), key=len)
        found.append(card.pop())
    return found


def _card(run: Run, answers: _Answers, first: str, second: str) -> list[Comparison]:
    """All pairs of answers of two snapshots to one prompt, in a random order."""
    ids = sorted(answers[first].keys() & answers[second].keys())
    random.Random(seed_from(run.config.seed, "matches", first, second)).shuffle(ids)
    return [
        Comparison.of(
            answers[first][id],
            id=match_id(first, second, id),
            status=Status.OK,
            error=None,
            seconds=0.0,
            seed=run.config.seed,
            model_version="",
            prompt_ids=(),
            answer_1=answers[first][id].text,
            answer_2=answers[second][id].text,
            token_ids_1=(),
            token_ids_2=(),
            policy_version=0,
        )
        for id in ids
    ]


def _answers(run: Run, snapshot: str, axis: Axis) -> dict[str, Answer]:
    recorded = run.run_dir.journal.records(Answer, f"answers_{snapshot}")
    return {answer.id: answer for answer in recorded if answer.axis == axis and answer.status == Status.OK}


def _recording(run: Run, axis: Axis, rows: list[Comparison]) -> Recording[Comparison]:
    task = label_task(run, run.constitution if axis == "red_team" else _helpfulness(run.constitution))
    model = run.path(run.config.labeller.model)
    return Recording(kind=matches_kind(axis), task=task, rows=lambda: rows, role="labeller", model=model)


def _helpfulness(constitution: Constitution) -> Constitution:
    """The principles of helpfulness alone."""
    own = tuple(p for p in constitution.principles if p.category == "helpfulness" and p.comparison is not None)
    return Constitution(
        name=f"{constitution.name}: helpfulness", version=constitution.version, principles=own or (HELPFULNESS,)
    )
