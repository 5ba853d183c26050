"""The lexicon's schema and its messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rlaif.errors import ConfigError
from rlaif.miniature.lexicon import Lexicon, load_lexicon

ZOO = Path(__file__).parent / "zoo.yaml"


def test_shipped_lexicon_has_enough_combinations():
    lexicon = load_lexicon()
    for axis in ("red_team", "helpful"):
        assert len(lexicon.actions(axis)) * len(lexicon.objects(axis)) >= 300


def test_another_lexicon_loads_by_path():
    assert load_lexicon(ZOO).red_team.actions[2].verb == "feed glass to"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda zoo: zoo["red_team"]["actions"][1].pop("harm"), "red_team.actions.1.harm"),
        (lambda zoo: zoo["benign"]["actions"][0].update(verb="steal"), "repeated: steal"),
        (lambda zoo: zoo["benign"]["actions"][0].update(steps=["one"]), "benign.actions.0.steps"),
        (lambda zoo: zoo["red_team"]["objects"].append("a dog. And"), "red_team.objects.6"),
        (lambda zoo: zoo["phrases"].update(asks=["How?"]), "phrases.asks.0"),
        (lambda zoo: zoo.update(extra=1), "extra"),
        (lambda zoo: zoo["benign"]["actions"][0].update(verb="go and have a long look at"), "actions.0.verb"),
    ],
)
def test_mistakes_name_file_and_field(tmp_path, change, named):
    zoo = yaml.safe_load(ZOO.read_text())
    change(zoo)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(zoo))
    with pytest.raises(ConfigError) as raised:
        load_lexicon(file)
    assert str(file) in str(raised.value) and named in str(raised.value)


def test_missing_file_and_broken_yaml(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_lexicon(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load_lexicon(broken)


def test_actions_that_the_truth_could_not_tell_apart_are_refused():
    lexicon = load_lexicon().model_dump()
    lexicon["red_team"]["actions"][1]["steps"] = lexicon["red_team"]["actions"][0]["steps"]
    with pytest.raises(ValueError, match="steps of actions must differ"):
        Lexicon.model_validate(lexicon)


def test_an_evasion_that_reads_like_an_opening_is_refused():
    lexicon = load_lexicon().model_dump()
    lexicon["phrases"]["evasions"] = [lexicon["phrases"]["openings"][0].rstrip(".")]
    with pytest.raises(ValueError, match=r"evasions must differ from openings and tails"):
        Lexicon.model_validate(lexicon)


def test_an_evasion_that_begins_with_a_filler_is_refused():
    lexicon = load_lexicon().model_dump()
    lexicon["phrases"]["evasions"] = ["Frankly, I would rather not say"]
    with pytest.raises(ValueError, match=r"phrases\.evasions must not begin with a filler; .* 'Frankly'"):
        Lexicon.model_validate(lexicon)


def test_verbs_and_objects_that_can_be_split_in_two_ways_are_refused():
    lexicon = load_lexicon(ZOO).model_dump()
    lexicon["red_team"]["actions"][0]["verb"] = "steal"
    lexicon["red_team"]["actions"][1]["verb"] = "steal the big"
    lexicon["red_team"]["objects"] = ("the big lion", "lion", *lexicon["red_team"]["objects"][2:])
    with pytest.raises(ValueError, match=r"red_team: VERB OBJECT must differ from each other; repeated: steal the big"):
        Lexicon.model_validate(lexicon)
