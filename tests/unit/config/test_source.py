"""A source in a configuration: a text, or keys and values that say more."""

import pytest

from rlaif.config.contradictions import flatten
from rlaif.config.files import differences, dump_config, load_config
from rlaif.config.schema import Config
from rlaif.config.source import MAPPED_FIELDS, Source
from rlaif.errors import ConfigError


@pytest.fixture
def loaded(tmp_path):
    def load(text="", *overrides, values=None):
        (tmp_path / "a.yaml").write_text(text)
        return load_config(tmp_path / "a.yaml", overrides, values or {})

    return load


def mistakes(load, *arguments):
    with pytest.raises(ConfigError) as error:
        load(*arguments)
    return str(error.value).splitlines()


MAPPED = "data: {red_team: {path: a.jsonl, prompt: request.text, limit: 5-10}, votes: hf:x/y}\n"


def test_a_text_is_a_path_and_is_stored_as_a_text(loaded):
    config = loaded("data: {red_team: a.jsonl#3}\n")
    assert config.data.red_team == Source(path="a.jsonl#3") and config.data.red_team.fields == {}
    assert "  red_team: a.jsonl#3\n" in dump_config(config)
    assert flatten(config)["data.red_team"] == Source(path="a.jsonl#3")


def test_keys_and_values_survive_the_stored_configuration(loaded):
    config = loaded(MAPPED)
    assert config.data.red_team.fields == {"prompt": "request.text"}
    assert loaded(dump_config(config)) == config
    assert differences(config, loaded(MAPPED.replace("text", "words"))) == ["data.red_team"]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"path": "a"}, "a"),
        ({"path": "a", "limit": 10}, "a#1-10"),
        ({"path": "a", "limit": "5-10"}, "a#5-10"),
        ({"path": "a", "sample": 10}, "a#10"),
        ({"path": "hf:o/n", "data_dir": "d", "config": "c", "split": "s", "limit": 2}, "hf:o/n/d:c@s#1-2"),
        ({"path": "a", "prompt": "b"}, "a"),
    ],
)
def test_keys_mean_what_the_end_of_a_path_means(keys, text):
    assert str(Source(**keys)) == text


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        (["data.red_team.prompt=c.d"], {"path": "a.jsonl", "prompt": "c.d", "limit": "5-10"}),
        (["data.red_team.path=b.jsonl"], {"path": "b.jsonl", "prompt": "request.text", "limit": "5-10"}),
        (["data.red_team=b.jsonl"], {"path": "b.jsonl"}),
        (["data.red_team=b.jsonl", "data.red_team.prompt=c"], {"path": "b.jsonl", "prompt": "c"}),
        (["data.red_team.prompt=c", "data.red_team=b.jsonl"], {"path": "b.jsonl", "prompt": "c"}),
        (["data.red_team.limit=7"], {"path": "a.jsonl", "prompt": "request.text", "limit": "7"}),
        (["data.red_team={path: b, prompt: 'x: y'}"], {"path": "b", "prompt": "x: y", "limit": "5-10"}),
        (
            ["data.red_team.limit=", "data.red_team.sample=3"],
            {"path": "a.jsonl", "prompt": "request.text", "sample": 3},
        ),
    ],
)
def test_overrides(loaded, overrides, source):
    assert loaded(MAPPED, *overrides).data.red_team == Source(**source)


def test_keys_go_over_a_text_and_a_text_replaces_keys(loaded, tmp_path):
    (tmp_path / "base.yaml").write_text("data: {red_team: a.jsonl, helpful: {path: h.jsonl, prompt: x}, votes: null}\n")
    config = loaded(
        "extends: base.yaml\ndata: {red_team: {prompt: b}, helpful: i.jsonl, votes: {path: v, answers: w}}\n"
    )
    assert config.data.red_team == Source(path="a.jsonl", prompt="b")
    assert config.data.helpful == Source(path="i.jsonl")
    assert config.data.votes == Source(path="v", answers="w")


def test_what_a_command_sets_is_never_parsed(loaded):
    values = {"data.comparisons.path": "{a: b}.jsonl", "data.comparisons.prompt": "[x]"}
    assert loaded("", values=values).data.comparisons == Source(path="{a: b}.jsonl", prompt="[x]")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.red_team.promt=b", "data.red_team.promt: unknown key; did you mean data.red_team.prompt?"),
        ("data.helpful.prompt=b", "data.helpful.path: is missing; add it"),
        ("data.red_team.limit=0x", "data.red_team.limit=0x: must be FIRST-LAST or a number of rows, counted from 1"),
        ("data.red_team.sample=0", "data.red_team.sample=0: must be at least 1"),
        ("data.red_team.sample=3", "limit and sample: choose the rows by one of them"),
        ("data.red_team.split=train", "split: only a path that begins with hf: has it"),
        ("data.red_team=", "data.red_team=: must not be empty"),
        ("evaluation.red_team={prompt: x}", "evaluation.red_team.path: is missing"),
    ],
)
def test_mistakes_name_the_key(loaded, override, said):
    (line,) = mistakes(loaded, MAPPED, override)
    assert said in line and line.startswith(override.split("=")[0].rpartition(".")[0])


def test_a_source_that_is_no_text_is_refused(loaded):
    assert mistakes(loaded, "data: {red_team: 3, helpful: null, votes: [a]}\n") == [
        "data.red_team=3: must be text; put it in quotes",
        "data.helpful=null: must not be null; give a value, or leave the key out for its default",
        'data.votes=["a"]: must be text; put it in quotes',
    ]


def test_every_field_that_can_be_named_is_a_key():
    assert set(MAPPED_FIELDS) < set(Source.model_fields)
    assert Config().data.red_team == Source(path="miniature:red_team")
