import json
from collections import Counter

import pytest

from rlaif.data.pairs import read_pairs
from rlaif.records import Turn

ASKED = [{"role": "user", "content": "q"}]
GOOD = [{"role": "assistant", "content": "good"}]
BAD = [{"role": "assistant", "content": "bad"}]
SYSTEM, OTHER_SYSTEM = ({"role": "system", "content": text} for text in ("Be brief.", "Be long."))


def read(tmp_path, *rows):
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quarantined = []
    return list(read_pairs(str(file), quarantined.append)), quarantined


def transcript(*texts):
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(texts))


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": transcript("q", "good"), "rejected": transcript("q", "bad")},
        {"chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
        {"prompt": ASKED, "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": " good", "rejected": "bad"},
        {"prompt": "q", "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "good", "rejected": "bad"},
        {"prompt": None, "chosen": transcript("q", "good"), "rejected": transcript("q", "bad")},
    ],
)
def test_every_published_shape_is_read(tmp_path, row):
    (pair,), quarantined = read(tmp_path, row)
    assert not quarantined
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Turn(role="human", text="q"),), "good", "bad")
    assert pair.source_row == 1


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": transcript("q", "good").replace("\n", "\r\n"), "rejected": transcript("q", "bad")},
        {"chosen": transcript("q", "good").replace("Human", "User"), "rejected": ASKED + BAD},
        {"prompt": json.dumps(ASKED), "chosen": json.dumps(ASKED + GOOD), "rejected": repr(ASKED + BAD)},
        {"prompt": "", "chosen": ASKED + GOOD, "rejected": ASKED + BAD, "answer_1": None},
        {"prompt": "q", "chosen": GOOD[0], "rejected": BAD[0]},
        {
            "prompt": "q",
            "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "good"}]}],
            "rejected": BAD,
        },
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": BAD[0],
        },
        {"question": "q", "chosen": "good", "rejected": "bad", "system": ""},
        {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
        {"input": "q", "chosen": "good", "rejected": "bad"},
        {"instruction": "q", "chosen_response": "good", "rejected_response": "bad"},
        {"messages": ASKED + GOOD, "rejected_response": "bad"},
        {"messages": ASKED + GOOD, "rejected_messages": ASKED + BAD},
        {"input": {"messages": ASKED}, "preferred_output": GOOD, "non_preferred_output": BAD},
        {"prompt": "q", "response_0": "bad", "response_1": "good", "better_response_id": 1, "safer_response_id": 0},
        {"prompt": "q", "response_0": "good", "response_1": "bad", "better_response_id": "0"},
        {"prompt": "q", "response_1": "good", "response_2": "bad", "preference_strength": -2},
        {"context": ASKED, "response1": "bad", "response2": "good", "overall_preference": 1},
        {"conversation_a": ASKED + BAD, "conversation_b": ASKED + GOOD, "winner": "model_b"},
        {"prompt": "q", "response_a": "good", "response_b": "bad", "winner": "A"},
        {"context": ASKED, "completions": [{"rank": 1, "completion": BAD}, {"rank": 0, "completion": GOOD}]},
        {
            "instruction": "q",
            "completions": [
                {"response": "middling", "overall_score": 5.0},
                {"response": "bad", "overall_score": 1.5},
                {"response": "good", "overall_score": 8.5},
            ],
        },
        {"prompt": "q", "responses": ["bad", "good"], "scores": [1, 2]},
        {"prompt": "q", "responses": '["bad", "good"]', "scores": "[1, 2]"},
        {"instruction": "q", "input": "", "output": ["good", "bad"]},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "corrects": ["good"], "incorrects": ["bad"]},
    ],
)
def test_shapes_of_the_field_are_read(tmp_path, row):
    (pair,), quarantined = read(tmp_path, row)
    assert not quarantined
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Turn(role="human", text="q"),), "good", "bad")


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Be brief.", "prompt": "q", "chosen": "good", "rejected": "bad"},
        {"chosen": [SYSTEM, *ASKED, *GOOD], "rejected": [SYSTEM, *ASKED, *BAD]},
        {"chosen": [SYSTEM, *ASKED, *GOOD], "rejected": [*ASKED, *BAD]},
        {"prompt": [SYSTEM, *ASKED], "chosen": GOOD, "rejected": BAD},
        {"prompt": [SYSTEM, *ASKED], "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": "q", "chosen": [SYSTEM, *ASKED, *GOOD], "rejected": [SYSTEM, *ASKED, *BAD]},
        {"messages": [SYSTEM, *ASKED, *GOOD], "rejected_response": "bad"},
        {"system": "Be brief.", "question": "q", "chosen": "good", "rejected": "bad"},
    ],
)
def test_a_system_turn_is_part_of_the_prompt(tmp_path, row):
    (pair,), quarantined = read(tmp_path, row)
    assert not quarantined
    assert pair.prompt == (Turn(role="system", text="Be brief."), Turn(role="human", text="q"))
    assert (pair.chosen, pair.rejected) == ("good", "bad")


def test_indented_code_stays_indented(tmp_path):
    (pair,), _ = read(tmp_path, {"prompt": "q", "chosen": "    return 1\n", "rejected": "\treturn 2"})
    assert (pair.chosen, pair.rejected) == ("    return 1", "\treturn 2")


def test_answers_may_go_on_from_the_prompt(tmp_path):
    more = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}]
    (pair,), _ = read(tmp_path, {"prompt": ASKED, "chosen": more + GOOD, "rejected": more + BAD})
    assert [turn.text for turn in pair.prompt] == ["q", "a", "more"]


def test_an_answer_of_json_is_an_answer(tmp_path):
    (pair,), _ = read(tmp_path, {"prompt": "q", "chosen": '{"a": 1}', "rejected": "[1]"})
    assert (pair.chosen, pair.rejected) == ('{"a": 1}', "[1]")


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"chosen": [SYSTEM, *ASKED, *GOOD], "rejected": [OTHER_SYSTEM, *ASKED, *BAD]}, "their system turns differ"),
        ({"prompt": [OTHER_SYSTEM, *ASKED], "chosen": [SYSTEM, *ASKED, *GOOD], "rejected": "b"}, "system turns differ"),
        ({"chosen": [SYSTEM, *GOOD], "rejected": [SYSTEM, *BAD]}, "no human turn before the answers"),
        ({"system": "y", "chosen": [SYSTEM, *ASKED, *GOOD], "rejected": "b"}, "has another system turn"),
        ({"prompt": "q", "chosen": "a", "rejected": "\u200b"}, "is empty"),
        ({"prompt": "q", "completion": "a", "label": True}, "`completion`: an answer with a label (KTO), not a pair"),
        ({"prompt": "q", "response": "a", "helpfulness": 3}, "one rated answer (HelpSteer), not a pair"),
        ({"prompt": "q", "completion": "a"}, "`completion`: one answer, not a pair"),
        ({"instruction": "q", "output": "a"}, "`output` holds one answer, not a pair"),
        ({"prompt": "q", "completions": ["a", "b"], "labels": [True, False]}, "or this is no pair"),
        ({"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 2}, "must be 0 or 1"),
        ({"prompt": "q", "response1": "a", "response2": "b", "overall_preference": 0}, "neither answer is better"),
        ({"prompt": "q", "response_a": "a", "response_b": "b", "winner": "tie"}, "neither answer is better"),
        ({"prompt": "q", "responses": ["a", "b"], "scores": [1, 1]}, "no answer is better"),
        ({"prompt": "q", "responses": ["a", "b"], "scores": [1]}, "not equally long"),
        ({"prompt": "q", "corrects": ["a", "b"], "incorrects": ["c"]}, "`corrects`: 2 answers, not one"),
        ({"prompt": "q", "corrects": ["a"], "incorrects": []}, "is missing"),
        (
            {"prompt": "q", "completions": [{"completion": "a", "rank": 0}, {"completion": "b", "score": 5}]},
            "rank and score cannot be compared",
        ),
        ({"prompt": "q", "history": [["x", "y"]], "chosen": "a", "rejected": "b"}, "fields `prompt` and `history`"),
        ({"prompt": "q", "chosen": str(GOOD)[:-2], "rejected": "b"}, "`chosen` looks like messages stored as text"),
        ({"prompt": "q", "chosen": "good<|im_end|>", "rejected": "b"}, "the mark of a chat template"),
        ({"prompt": ASKED, "chosen": GOOD + ASKED + GOOD, "rejected": BAD + ASKED + BAD}, "the dialogues differ"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(tmp_path, row, cause):
    pairs, quarantined = read(tmp_path, row, {"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert len(pairs) == 1
    assert cause in quarantined[0].cause


def test_earlier_turns_stay_in_the_prompt(tmp_path):
    (pair,), _ = read(
        tmp_path,
        {"chosen": transcript("a", "b: c\n\nd", "e", "good"), "rejected": transcript("a", "b: c\n\nd", "e", "bad")},
    )
    assert [turn.text for turn in pair.prompt] == ["a", "b: c\n\nd", "e"]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"chosen": transcript("q", "good"), "rejected": transcript("r", "bad")}, "the dialogues differ"),
        ({"prompt": "r", "chosen": ASKED + GOOD, "rejected": ASKED + BAD}, "`prompt` is not what precedes"),
        ({"chosen": transcript("q", " "), "rejected": transcript("q", "bad")}, "`chosen`: the answer is empty"),
        ({"prompt": "q", "chosen": "good", "rejected": " "}, "`rejected` is empty"),
        ({"chosen": "good", "rejected": "bad"}, "`prompt` is missing"),
        ({"prompt": "q", "chosen": "good"}, "`rejected` is missing"),
        ({"prompt": "q", "chosen": 1, "rejected": "bad"}, "`chosen` must be text or a list of messages"),
        ({"chosen": transcript("q"), "rejected": transcript("q", "bad")}, "`chosen` must end with an assistant"),
    ],
)
def test_a_bad_pair_is_quarantined_by_name(tmp_path, row, cause):
    pairs, quarantined = read(tmp_path, row, {"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert len(pairs) == 1
    assert cause in quarantined[0].cause


def test_real_pairs_lose_exactly_the_malformed_ones(public_file):
    file = public_file("hh_harmless_pairs.jsonl")
    quarantined = []
    pairs = list(read_pairs(str(file), quarantined.append))
    assert len(pairs) == 1156 - 7
    causes = Counter(bad.cause.rpartition(": ")[2] for bad in quarantined)
    assert causes == {"the dialogues differ before the last answer": 5, "the answer is empty": 2}
    for pair, line in zip(pairs[:40], file.read_text().splitlines(), strict=False):
        raw = json.loads(line)
        assert raw["chosen"].endswith(pair.chosen)
        # Nothing in the transcript is lost: its words are exactly those of the turns and the answer.
        words = " ".join([*(turn.text for turn in pair.prompt), pair.chosen]).split()
        assert words == raw["chosen"].replace("\n\nHuman:", " ").replace("\n\nAssistant:", " ").split()


def test_public_pairs_need_no_mapping(public_file):
    quarantined = []
    assert len(list(read_pairs(str(public_file("llmbar_pairs.jsonl")), quarantined.append))) == 419
    assert not quarantined
