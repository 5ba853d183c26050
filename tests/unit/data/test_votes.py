import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
        ([*ANSWERS, {"text": "", "votes": 1}], "`answers[2]`: field `text` is empty"),
        ([*ANSWERS, {"text": "x"}], "`answers[2]`: field `votes` is missing"),
        ([*ANSWERS, {"text": "x", "votes": "3"}], "`answers[2].votes` must be a whole number"),
        ([*ANSWERS, {"text": "x", "votes": 3, "accepted": "no"}], "`answers[2].accepted` must be true or false"),
    ],
)
def test_a_bad_question_is_quarantined_by_name(tmp_path, answers, cause):
    good = {"question": "why?", "answers": ANSWERS}
    rows, quarantined = read(tmp_path, good, {"question": "why?", "answers": answers})
    assert len(rows) == 1
    assert cause in quarantined[0].cause
