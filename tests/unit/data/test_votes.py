import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.algorithms.preference_model import answer_score
from rlaif.data.votes import read_votes
from rlaif.records import ScoredAnswer

ANSWERS = [{"text": "yes", "votes": 3, "accepted": True}, {"text": "no", "votes": -1}]


def read(tmp_path, *rows):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quarantined = []
    return list(read_votes(str(file), quarantined.append)), quarantined


def test_questions_are_read_with_their_votes(tmp_path):
    (row,), _ = read(tmp_path, {"question": "why?", "answers": ANSWERS})
    assert row.question == "why?"
    assert row.answers == (
        ScoredAnswer(text="yes", votes=3, accepted=True),
        ScoredAnswer(text="no", votes=-1, accepted=False),
    )


def test_parquet_structs_are_read(tmp_path):
    pq.write_table(pa.table({"question": ["why?"], "answers": [ANSWERS]}), tmp_path / "a.parquet")
    (row,) = read_votes(str(tmp_path / "a.parquet"), pytest.fail)
    assert [answer.votes for answer in row.answers] == [3, -1]


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        (ANSWERS[:1], "`answers` must be a list of at least two"),
        ("yes", "`answers` must be a list"),
        ([*ANSWERS, "maybe"], r"`answers[2]` must be an object"),
        ([*ANSWERS[:1], {"text": "", "votes": 1}, {"text": None, "votes": 1}], "`answers` holds 1 answers"),
        ([*ANSWERS, {"votes": 1}], "`answers[2]`: field `text` is missing"),
        ([*ANSWERS, {"text": 7, "votes": 1}], "`answers[2]`: field `text` must be text"),
        ([*ANSWERS, {"text": "x"}], "`answers[2]`: field `votes` is missing"),
        ([*ANSWERS, {"text": "x", "votes": "3.5"}], "`answers[2].votes` must be a whole number"),
        ([*ANSWERS, {"text": "x", "votes": "many"}], "`answers[2].votes` must be a number"),
        ([*ANSWERS, {"text": "x", "votes": float("nan")}], "`answers[2]`: field `votes` is null"),
        ([*ANSWERS, {"text": "x", "votes": 10**400, "accepted": [1]}], "`answers[2].accepted` must be true or false"),
        ([*ANSWERS, {"text": "x", "pm_score": 99}], "`answers[2].pm_score` must be between -1 and 62"),
        ([*ANSWERS, {"text": "x", "votes": 3, "accepted": "no"}], "`answers[2].accepted` must be true or false"),
    ],
)
def test_a_bad_question_is_quarantined_by_name(tmp_path, answers, cause):
    good = {"question": "why?", "answers": ANSWERS}
    rows, quarantined = read(tmp_path, good, {"question": "why?", "answers": answers})
    assert len(rows) == 1
    assert cause in quarantined[0].cause


@pytest.mark.parametrize("votes", [3, 3.0, "3", " 3.0 "])
def test_votes_are_read_in_every_spelling(tmp_path, votes):
    answers = [{"text": "yes", "votes": votes, "accepted": "True"}, {"text": "no", "votes": -1, "accepted": None}]
    (row,), _ = read(tmp_path, {"question": "why?", "answers": answers})
    assert row.answers == (
        ScoredAnswer(text="yes", votes=3, accepted=True),
        ScoredAnswer(text="no", votes=-1, accepted=False),
    )


def test_an_empty_answer_leaves_the_others(tmp_path):
    (row,), quarantined = read(tmp_path, {"question": "why?", "answers": [*ANSWERS, {"text": " ", "votes": 1}]})
    assert [answer.text for answer in row.answers] == ["yes", "no"]
    assert not quarantined


@pytest.mark.parametrize("score", [-1, 0, 1, 5, 12])
def test_a_published_score_is_kept(tmp_path, score):
    answers = [{"text": "a", "pm_score": score, "selected": True}, {"text": "b", "pm_score": 1}]
    (row,), _ = read(tmp_path, {"question": "why?", "answers": answers})
    assert answer_score(row.answers[0].votes, row.answers[0].accepted) == score


def test_answers_in_a_cell_of_text_are_read(tmp_path):
    rows, _ = read(tmp_path, {"question": "why?", "answers": json.dumps(ANSWERS)})
    assert [answer.votes for answer in rows[0].answers] == [3, -1]
