import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif.data.comparisons import read_comparisons
from rlaif.data.pairs import read_pairs
from rlaif.data.prompts import read_prompts
from rlaif.data.votes import read_votes
from rlaif.records import Turn

ASKED = [{"role": "user", "content": "q"}]


def read(tmp_path, *rows):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quarantined = []
    return list(read_comparisons(str(file), quarantined.append)), quarantined


@pytest.mark.parametrize(
    ("row", "gold"),
    [
        ({"prompt": "q", "answer_1": "a", "answer_2": "b"}, None),
        ({"prompt": ASKED, "answer_1": "a", "answer_2": "b", "gold": "0.5"}, 0.5),
        ({"prompt": "q", "answer_1": "a", "answer_2": "b", "gold": ""}, None),
        ({"prompt": "q", "answer_1": "a", "answer_2": "b", "gold": 1, "chosen": None, "rejected": None}, 1.0),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "answer_1": None, "answer_2": None}, 1.0),
        ({"question": "q", "answer_1": "a", "answer_2": "b"}, None),
        ({"prompt": "q", "answer_1": [{"role": "assistant", "content": "a"}], "answer_2": "b"}, None),
        ({"prompt": "q", "response_0": "a", "response_1": "b"}, None),
        ({"prompt": "q", "response_0": "b", "response_1": "a", "better_response_id": 1}, 1.0),
    ],
)
def test_shapes_of_the_field_are_read(tmp_path, row, gold):
    (comparison,), quarantined = read(tmp_path, row)
    assert not quarantined
    assert comparison.prompt == (Turn(role="human", text="q"),)
    assert (comparison.answer_1, comparison.answer_2, comparison.gold) == ("a", "b", gold)


def test_a_system_turn_is_part_of_the_prompt(tmp_path):
    system = {"role": "system", "content": "x"}
    rows = [
        {"prompt": "q", "answer_1": "a", "answer_2": "b", "system": "x"},
        {"prompt": [system, *ASKED], "answer_1": "a", "answer_2": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "b", "system_prompt": "x"},
    ]
    comparisons, quarantined = read(tmp_path, *rows)
    assert not quarantined
    assert {row.prompt for row in comparisons} == {(Turn(role="system", text="x"), Turn(role="human", text="q"))}


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b", "answer_1": "a", "answer_2": "b"}, "side by side"),
        ({"prompt": "q", "answer_1": "a"}, "`answer_2` is missing"),
        ({"prompt": "q", "answer_1": " ", "answer_2": "b"}, "`answer_1`: the answer is empty"),
        ({"prompt": "q", "answer_1": "a", "answer_2": "b", "gold": "answer_1"}, "`gold` must be a number in [0, 1]"),
        ({"prompt": "q", "answer_1": "a", "answer_2": "b", "gold": True}, "`gold` must be a number in [0, 1]"),
        ({"prompt": "q", "answer_1": "a", "answer_2": "b", "system": 3}, "`system` must be text"),
        ({"prompt": "q", "answer_1": json.dumps(ASKED), "answer_2": "b"}, "`answer_1` must end with an assistant turn"),
        ({"prompt": "q"}, "no pair: neither `chosen` and `rejected` nor `answer_1` and `answer_2`"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(tmp_path, row, cause):
    comparisons, quarantined = read(tmp_path, row, {"prompt": "q", "answer_1": "a", "answer_2": "b"})
    assert len(comparisons) == 1
    assert cause in quarantined[0].cause


NAMES = (
    *("prompt", "messages", "chosen", "rejected", "conversations", "transcript", "instruction", "input", "question"),
    *("context", "completions", "output", "response_0", "response_1", "better_response_id", "responses", "scores"),
    *("winner", "answers", "answer_1", "answer_2", "gold", "system", "history", "role", "content", "from", "value"),
    *("text", "votes", "pm_score", "accepted", "rank", "completion", "overall_score"),
)
texts = st.sampled_from(["q", "", " ", "1", "[1]", '[{"role": "user", "content": "q"}]', "Human: a\nAI: b", "[INST]"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.sampled_from(NAMES), values, max_size=5), max_size=4)
GOOD = {
    "prompt": "q",
    "chosen": "a",
    "rejected": "b",
    "question": "q",
    "answers": [{"text": "a", "votes": 1}, {"text": "b", "votes": 0}],
}


@given(rows)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_row_is_read_or_quarantined(tmp_path, rows):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [GOOD, *rows]))
    for reader in (read_pairs, read_comparisons, read_votes, lambda s, q: read_prompts(s, "helpful", q)):
        quarantined = []
        assert len(list(reader(str(file), quarantined.append))) + len(quarantined) == 1 + len(rows)
