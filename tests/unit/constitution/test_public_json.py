import json
from pathlib import Path

import pytest

from rlaif.constitution.principles import load_constitution, parse_constitution
from rlaif.constitution.public_json import tree_of
from rlaif.errors import ConfigError

REQUESTS = {
    "Unkind-0": {
        "prompt": ["\n\nCritiqueRequest: Say what is unkind.", "\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Make it kind.\n\nRevision:",
    },
    "rash": {"prompt": ["Say what is rash.", "Give a reason."], "edit_request": "Make it careful."},
}
COMPARISONS = ["\nWhich answer is kinder? Options:", "Which answer is more careful?"]


def written(path: Path, content) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_critique_and_revision_requests_without_the_labels_of_templates(tmp_path):
    constitution = load_constitution(str(written(tmp_path / "requests.json", REQUESTS)))
    assert constitution.name == "requests" and not constitution.for_comparison
    one, two = constitution.for_revision
    assert (one.id, one.category, one.source) == ("unkind_0", "harm_avoidance", "requests.json: Unkind-0")
    assert (one.critique_request, one.revision_request) == ("Say what is unkind.", "Make it kind.")
    assert two.critique_request == "Say what is rash.\nGive a reason."


def test_a_list_of_comparisons(tmp_path):
    constitution = load_constitution(str(written(tmp_path / "comparisons.json", COMPARISONS)))
    assert [p.id for p in constitution.for_comparison] == ["comparison_1", "comparison_2"]
    assert [p.comparison for p in constitution.principles] == ["Which answer is kinder?", COMPARISONS[1]]
    assert not constitution.for_revision


def test_two_files_make_one_constitution(tmp_path):
    files = [written(tmp_path / "a.json", REQUESTS), written(tmp_path / "b.json", COMPARISONS)]
    constitution = parse_constitution(tree_of(files), tmp_path)
    assert constitution.name == "a_b"
    assert (len(constitution.for_revision), len(constitution.for_comparison)) == (2, 2)


def test_a_constitution_of_ours_as_json(tmp_path):
    shipped = load_constitution("nine_points")
    path = tmp_path / "c.json"
    path.write_text(shipped.model_dump_json())
    assert load_constitution(str(path)) == shipped
    with pytest.raises(ConfigError, match=r"c\.json.*alone"):
        tree_of([path, written(tmp_path / "b.json", COMPARISONS)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 1: not JSON"),
        ("3", "must hold"),
        ('{"a": "text"}', "a: must be an object"),
        ('{"a": {"prompt": "text", "edit_request": "x"}}', "a.prompt: must be a list"),
        ('{"a": {"prompt": [1], "edit_request": "x"}}', "a.prompt.0: must be text"),
        ('{"a": {"prompt": ["Critique:"], "edit_request": "x"}}', "a.prompt: is empty"),
        ('{"a": {"prompt": ["x"]}}', "a.edit_request: must be text"),
        ('{"a": {"prompt": ["x"], "edit_request": "x", "edit": "y"}}', "a.edit: unknown key"),
        ('{"a": {"prompt": ["x"], "edit_request": "x"}, "a": {}}', "a: appears twice"),
        ('{"a b": {"prompt": ["x"], "edit_request": "x"}, "a-b": {"prompt": ["y"], "edit_request": "y"}}', "a_b"),
        ('["x", {}]', "row 2: must be text"),
        ("[]", "principles"),
    ],
)
def test_a_malformed_file_is_one_clear_mistake(tmp_path, text, told):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.json") as error:
        load_constitution(str(path))
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1
