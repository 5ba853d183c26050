import json

import pytest

from rlaif.data.prompts import read_prompts
from rlaif.records import Prompt, Turn


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(prompt):
    return [turn.text for turn in prompt.turns]


def test_every_published_shape_is_read(tmp_path):
    asked = [{"role": "user", "content": "q"}]
    file = write(
        tmp_path / "a.jsonl",
        {"prompt": "q"},
        {"prompt": "\n\nHuman: q\n\nAssistant:"},
        {"prompt": asked},
        {"messages": asked},
        {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
        {"chosen": [*asked, {"role": "assistant", "content": "good"}], "rejected": []},
    )
    prompts = list(read_prompts(file, "red_team", pytest.fail))
    assert prompts[0] == Prompt(
        id=prompts[0].id,
        source_file=file,
        source_row=1,
        axis="red_team",
        turns=(Turn(role="human", text="q"),),
    )
    assert [texts(prompt) for prompt in prompts] == [["q"]] * 6
    content, *others = (prompt.id for prompt in prompts)
    assert others == [f"{content}~{occurrence}" for occurrence in range(2, 7)]


ASKED = [{"role": "user", "content": "q"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"prompt": "q", "completion": "a", "label": True},
        {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1},
        {"prompt": ASKED, "chosen": ANSWERED, "rejected": ANSWERED, "messages": ANSWERED},
        {"prompt": ASKED[0]},
        {"prompt": json.dumps(ASKED)},
        {"messages": ANSWERED},
        {"messages": json.dumps(ANSWERED)},
        {"conversations": [{"from": "human", "value": "q"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "id": 3},
        {"conversation": ANSWERED, "model": "m"},
        {"conversation_a": ANSWERED, "conversation_b": ANSWERED, "winner": "tie"},
        {"transcript": "\n\nHuman: q\n\nAssistant: a", "rating": 4, "tags": None},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "completions": [{"response": "a"}], "models": []},
        {"instruction": "q", "chosen": "a", "rejected": "b"},
        {"question": "q", "chosen": "a", "rejected": "b", "system": ""},
        {"query": "q"},
        {"context": ASKED, "completions": []},
        {"input": {"messages": ASKED}, "preferred_output": [], "non_preferred_output": []},
        {"input": "q", "output": "a"},
        {"custom_id": "1", "method": "POST", "body": {"model": "m", "messages": ASKED}},
        {"request": {"messages": ASKED}, "response": {"choices": []}},
        {"prompt": None, "messages": ASKED},
        {"prompt": "", "messages": ASKED, "system": None},
        {"prompt": float("nan"), "messages": ASKED},
        {"prompt": "q", "messages": None, "chosen": None},
    ],
)
def test_shapes_of_the_field_are_read(tmp_path, row):
    (prompt,) = read_prompts(write(tmp_path / "a.jsonl", row), "helpful", pytest.fail)
    assert prompt.turns == (Turn(role="human", text="q"),)


def test_an_instruction_has_its_input_and_its_history(tmp_path):
    file = write(
        tmp_path / "a.jsonl",
        {"instruction": "Translate this.", "input": "guten Tag", "history": [["a", "b"]]},
        {"instruction": "Who?", "context": "A text.", "response": "x"},
    )
    prompts = read_prompts(file, "helpful", pytest.fail)
    assert [texts(prompt) for prompt in prompts] == [["a", "b", "Translate this.\n\nguten Tag"], ["Who?\n\nA text."]]


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Be brief.", "prompt": "q"},
        {"system": "\n Be brief. ", "prompt": [SYSTEM, *ASKED]},
        {"system_prompt": "Be brief.", "system": None, "messages": ASKED},
        {"systemPrompt": "Be brief.", "instruction": "q"},
        {"sys": "Be brief.", "prompt": "q"},
        {"preprompt": "Be brief.", "question": "q"},
        {"messages": [SYSTEM, *ASKED]},
        {"messages": [{"role": "developer", "content": "Be brief."}, *ASKED]},
        {"messages": [SYSTEM, {"role": "system", "content": ""}, *ASKED, {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "q"}]},
        {"input": {"messages": ASKED, "system": "Be brief."}},
        {"prompt": "q", "messages": [SYSTEM, *ASKED, {"role": "assistant", "content": "a"}]},  # no_robots
        {"prompt": "System: Be brief.\n\nHuman: q\n\nAssistant:"},
        {"prompt": "System: Be brief.\nUser: q\nAI:"},
        {"prompt": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nq<|im_end|>"},
        {"prompt": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nq [/INST]"},
        {"prompt": "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]q[/INST]"},
        {"prompt": "### System:\nBe brief.\n### User:\nq\n### Assistant:\n"},
    ],
)
def test_a_system_turn_is_the_first_of_the_prompt(tmp_path, row):
    (prompt,) = read_prompts(write(tmp_path / "a.jsonl", row), "helpful", pytest.fail)
    assert [(turn.role, turn.text) for turn in prompt.turns] == [("system", "Be brief."), ("human", "q")]


def test_several_system_messages_are_one_turn(tmp_path):
    row = {"messages": [SYSTEM, {"role": "developer", "content": "In French."}, *ASKED]}
    (prompt,) = read_prompts(write(tmp_path / "a.jsonl", row), "helpful", pytest.fail)
    assert texts(prompt) == ["Be brief.\n\nIn French.", "q"]


def test_thoughts_are_not_what_was_said(tmp_path):
    asked = [*ASKED, {"role": "assistant", "content": "a", "reasoning_content": "hm"}, *ASKED]
    (prompt,) = read_prompts(write(tmp_path / "a.jsonl", {"messages": asked}), "helpful", pytest.fail)
    assert texts(prompt) == ["q", "a", "q"]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"instructions": "Be brief.", "input": ASKED}, "field `instructions`: instructions for the assistant, or for"),
        ({"system": ["x"], "prompt": "q"}, "field `system` must be text, not a list"),
        ({"system": "a", "system_prompt": "b", "prompt": "q"}, "fields `system` and `system_prompt` are two system"),
        ({"system": "a", "messages": [SYSTEM, *ASKED]}, "field `system`: the conversation has another system turn"),
        ({"messages": [*ASKED, SYSTEM, *ASKED]}, "field `messages`: a system turn after the first human"),
        ({"messages": [{"role": "user", "content": "q", "system": "x"}]}, "`messages[0].system`: a system turn within"),
        ({"conversations": [{"from": "system", "value": "x"}]}, "field `conversations` must end with a human turn"),
        ({"instruction": [SYSTEM, *ASKED], "history": [["a", "b"]]}, "`instruction` and `history`: both hold turns"),
        ({"prompt": "\u200b\ufeff"}, "field `prompt` is empty"),
        ({"messages": [{"role": "user", "content": "\u3164\u2800 \x00"}]}, "the last human turn is empty"),
        ({"prompt": "q", "tools": [{"name": "f"}]}, "field `tools`: tool turn"),
        ({"prompt": "What is this?", "images": ["x.png"]}, "field `images`: content that is not text"),
        ({"question": "q", "context": "A text."}, "fields `question` and `context`"),
        ({"prompt": "q", "context": "A text."}, "fields `prompt` and `context`: join them"),
        ({"messages": ASKED, "context": "A text."}, "fields `messages` and `context`: join them"),
        ({"question": "q", "history": [["x", "y"]]}, "fields `question` and `history`"),
        ({"prompt": "q", "history": [["x", "y"]]}, "fields `prompt` and `history`"),
        ({"prompt": [{"role": "user", "content": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r"}]}, "a whole dialogue"),
        ({"messages": json.dumps(ASKED)[:-3]}, "field `messages` looks like messages stored as text"),
        ({"prompt": "", "messages": None}, "field `prompt` is empty"),
        ({"text": "q", "lang": "en"}, "the row has `text`, `lang`"),
    ],
)
def test_what_would_change_the_prompt_is_never_dropped(tmp_path, row, cause):
    file = write(tmp_path / "a.jsonl", {"prompt": "good"}, row)
    quarantined = []
    assert len(list(read_prompts(file, "helpful", quarantined.append))) == 1
    assert cause in quarantined[0].cause


def test_equal_prompts_stay_two_rows(tmp_path):
    file = write(tmp_path / "a.jsonl", {"prompt": "same"}, {"prompt": "same"})
    assert len({prompt.id for prompt in read_prompts(file, "helpful", pytest.fail)}) == 2


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"text": "q"}, "field `prompt` is missing"),
        ({"prompt": None}, "field `prompt` is null"),
        ({"prompt": 7}, "field `prompt` must be text"),
        ({"prompt": " "}, "field `prompt` is empty"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "field `messages` must end with a human turn"),
        ({"chosen": "\n\nHuman: q"}, "field `chosen` must end with an assistant turn"),
    ],
)
def test_a_bad_row_names_its_field(tmp_path, row, cause):
    file = write(tmp_path / "a.jsonl", {"prompt": "good"}, row)
    quarantined = []
    assert len(list(read_prompts(file, "helpful", quarantined.append))) == 1
    assert cause in quarantined[0].cause


def test_real_files_are_read_whole(public_file):
    quarantined = []
    red_team = list(read_prompts(str(public_file("hh_harmless_pairs.jsonl")), "red_team", quarantined.append))
    assert len(red_team) + len(quarantined) == 1156
    # In these rows the chosen transcript has two assistant turns in a row.
    assert [bad.row for bad in quarantined] == [628, 845, 977, 1019]


@pytest.mark.parametrize(
    ("name", "num_rows"),
    [
        ("xstest_prompts.csv", 450),
        ("xstest_completions.jsonl", 900),
        ("strongreject.csv", 313),
        ("simple_safety_tests.csv", 100),
        ("llmbar_pairs.jsonl", 419),
    ],
)
def test_public_prompts_need_no_mapping(public_file, name, num_rows):
    prompts = list(read_prompts(str(public_file(name)), "red_team", pytest.fail))
    assert len(prompts) == num_rows
    assert all(len(prompt.turns) == 1 for prompt in prompts)
