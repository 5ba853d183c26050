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
        id=f"{file}:1",
        source_file=file,
        source_row=1,
        axis="red_team",
        turns=(Turn(role="human", text="q"),),
    )
    assert [texts(prompt) for prompt in prompts] == [["q"]] * 6


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
    assert len(list(read_prompts(str(public_file("xstest_prompts.csv")), "helpful", pytest.fail))) == 450
