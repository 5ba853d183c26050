"""Elo of snapshots from the judge's labels."""

import math
import random

import pytest

from rlaif.config.schema import Config
from rlaif.evaluation.elo import ELO, match_book, matches_kind
from rlaif.ids import evaluation_id, match_id, match_of
from rlaif.miniature.lexicon import load_lexicon
from rlaif.records import Judgement, Preference, Turn
from rlaif.storage.run_dir import RunDir
from tests.unit.provenance import PROVENANCE

PLAYERS = ("helpful_only", "sl_cai", "rl_cai")


def label(first, second, prompt, l1, l2, prob=0.6, judged=True):
    """A label with the un-swapped log-odds of both orders."""

    def judgement(order, lead):
        a, b = (lead, 0.0) if order == 1 else (0.0, lead)
        norm = math.log(math.exp(a) + math.exp(b))
        return Judgement(principle_id="p", order=order, logprob_a=a - norm, logprob_b=b - norm)

    return Preference(
        **{**PROVENANCE, "id": match_id(first, second, evaluation_id(prompt, "red_team", 0)), "axis": "red_team"},
        prompt=(Turn(role="human", text=prompt),),
        prompt_ids=(),
        answer_1="one",
        answer_2="other",
        token_ids_1=(),
        token_ids_2=(),
        policy_version=0,
        prob=prob,
        aggregation="prob_mean",
        judgements=(judgement(1, l1), judgement(2, l2)) if judged else (),
        constitution_hash="",
        template_version="1",
        truncated=False,
    )


def test_both_orders_are_matches_with_the_first_player_in_slot_a_once():
    book = match_book(PLAYERS, [label("helpful_only", "rl_cai", "q", l1=1.0, l2=-0.5)])
    (a1, b1, outcome1, cluster1), (a2, b2, outcome2, cluster2) = book.rows
    assert (a1, b1, outcome1) == (0, 2, 1.0)  # the first player wins in slot A
    assert (a2, b2, outcome2) == (2, 0, 1.0)  # and loses in slot B: whoever is in A wins
    assert cluster1 == cluster2


def test_equal_answers_tie_twice_and_what_was_not_judged_is_counted():
    labels = [
        label("helpful_only", "sl_cai", "q", 0, 0, prob=0.5, judged=False),
        label("helpful_only", "sl_cai", "r", 1, 1, prob=None),
    ]
    book = match_book(PLAYERS, labels)
    assert [row[2] for row in book.rows] == [0.5, 0.5]
    assert (book.num_ties, book.num_unjudged) == (2, 1)


def test_matches_on_one_prompt_belong_together_whoever_meets():
    book = match_book(PLAYERS, [label(*pair, "q", 1, 1) for pair in (PLAYERS[:2], PLAYERS[1:])])
    assert len({row[3] for row in book.rows}) == 1


def test_ids_of_matches_give_back_what_they_were_made_of():
    answer = evaluation_id("a/b#1", "helpful", 3)
    assert match_of(match_id("sl_cai", "rl_cai", answer)) == ("sl_cai", "rl_cai", answer)


@pytest.fixture
def measured(tmp_path):
    def measure(labels):
        run_dir = RunDir(tmp_path / "run", Config())
        run_dir.journal.add_all(matches_kind("red_team"), labels)
        part = ELO.measure(run_dir, load_lexicon())
        run_dir.close()
        return {**part.results, "counts": part.counts, "intervals": part.intervals}

    return measure


def test_strengths_are_found_in_spite_of_a_judge_who_prefers_a_slot(measured):
    """SL-CAI wins 3 of 4 against helpful-only, RL-CAI 3 of 4 against SL-CAI, for a judge with 2 log-odds toward A."""
    chance, truth, labels = random.Random(0), {"helpful_only": -1.1, "sl_cai": 0.0, "rl_cai": 1.1}, []
    for n in range(600):
        first, second = chance.sample(PLAYERS, 2)
        lead = truth[first] - truth[second]
        noise = [math.log(u / (1 - u)) for u in (chance.random(), chance.random())]
        labels.append(label(first, second, f"q{n}", lead + 2 + noise[0], lead - 2 + noise[1]))
    evaluation = measured(labels)
    cell, intervals = evaluation["elo"]["red_team"], evaluation["intervals"]["elo"]["red_team"]["elo"]
    assert cell["elo"]["sl_cai"] == 0
    for player, strength in truth.items():
        low, high = intervals[player]
        assert low <= 173.718 * strength <= high
    assert cell["slot_a"] == pytest.approx(2 * 173.718, abs=60)
    assert "helpful-only -" in ELO.remarks(evaluation)[0]
    assert ELO.headlines(evaluation)[0].title == "Elo, harmlessness, by the labeller"


def test_a_snapshot_without_a_verdict_has_no_strength_and_harms_nobody(measured):
    labels = [label("helpful_only", "sl_cai", f"q{n}", 1, -1) for n in range(4)]
    labels += [label("sl_cai", "rl_cai", f"r{n}", 1, 1, prob=None) for n in range(3)]
    evaluation = measured(labels)
    assert set(evaluation["elo"]["red_team"]["elo"]) == {"helpful_only", "sl_cai"}
    assert evaluation["counts"]["elo"]["red_team"]["unjudged"] == 3
    assert "3 of 7 pairs without a verdict" in ELO.remarks(evaluation)[0]


def test_clusters_do_not_depend_on_the_process():
    book = match_book(PLAYERS, [label("helpful_only", "sl_cai", prompt, 1, 1) for prompt in ("b", "a", "b")])
    assert [row[3] for row in book.rows] == [0, 0, 1, 1, 0, 0]


def test_without_matches_there_is_nothing_to_say(measured):
    assert measured([]) == {"counts": {}, "intervals": {}}
    assert not ELO.headlines({}) and not ELO.remarks({})
