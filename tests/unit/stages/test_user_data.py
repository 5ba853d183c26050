"""System turns: put before rows that have none; where a chat template has no role for them, merged or refused."""

import json

import pytest

from rlaif.config.files import load_config
from rlaif.stages.user_data import UserData
from tests.tiny_models import tiny_tokenizer

ROLES = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + ROLES


@pytest.fixture
def data(tmp_path):
    rows = [{"system": "Be brief.", "prompt": "a", "chosen": "x", "rejected": "y"}]
    rows += [{"prompt": p, "chosen": "x", "rejected": "y"} for p in "bc"]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "held_out.jsonl").write_text('{"prompt": "other"}\n')
    (tmp_path / "a.yaml").write_text("")

    def make(template: str, *overrides: str) -> UserData:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path / "model")
        keys = ("generator.model", "supervision.base_model")
        overrides = (*overrides, *(f"{key}={tmp_path}/model" for key in keys))
        overrides = (*overrides, *(f"data.{key}={tmp_path}/rows.jsonl" for key in ("red_team", "helpful_pairs")))
        overrides = (*overrides, *(f"evaluation.{key}={tmp_path}/held_out.jsonl" for key in ("red_team", "helpful")))
        return UserData(config=load_config(tmp_path / "a.yaml", overrides), paths={})

    return make


@pytest.mark.parametrize(
    ("template", "overrides", "num_refused"),
    [
        (NO_SYSTEM, ["dialogue_format=chat_template", "system_turns=refuse"], 1),
        (NO_SYSTEM, ["dialogue_format=chat_template"], 0),
        (NO_SYSTEM, ["system_turns=refuse"], 0),
        (ROLES, ["dialogue_format=chat_template", "system_turns=refuse"], 0),
    ],
)
def test_rows_with_a_system_turn_are_refused_only_where_it_could_not_be_shown(data, template, overrides, num_refused):
    user_data = data(template, *overrides)
    for read in (lambda quarantine: user_data.prompts("red_team", quarantine), user_data.pairs):
        bad = []
        assert len(list(read(bad.append))) == 3 - num_refused
        assert len(bad) == num_refused
        assert all(row.row == 1 and "system_turns=refuse" in row.cause for row in bad)


def test_the_system_prompt_precedes_every_prompt_and_pair_that_has_no_system_turn(data):
    user_data, plain = data(ROLES, "data.system_prompt=Answer in one sentence."), data(ROLES)
    rows = [prompt.turns for prompt in user_data.prompts("red_team")]
    assert [turns[0].text for turns in rows] == ["Be brief.", *["Answer in one sentence."] * 2]
    assert [turns[1:] for turns in rows[1:]] == [prompt.turns for prompt in plain.prompts("red_team")][1:]
    assert [pair.prompt for pair in user_data.pairs()] == rows
    (held_out,) = user_data.held_out_prompts("helpful")
    assert [turn.role for turn in held_out.turns] == ["system", "human"]
    assert [row.id for row in user_data.prompts("red_team")] == [row.id for row in plain.prompts("red_team")]
