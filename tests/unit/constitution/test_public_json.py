import json
from pathlib import Path

import pytest

from rlaif.constitution.principles import load_constitution, parse_constitution
from rlaif.constitution.public_files import tree_of
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
        ('{"a": {"prompt": 3, "edit_request": "x"}}', "a.prompt: must be text"),
        ('{"a": {"prompt": [], "edit_request": "x"}}', "a.prompt: is empty"),
        ('{"a": {"prompt": [1], "edit_request": "x"}}', "a.prompt.0: must be text"),
        ('{"a": {"prompt": ["Critique:"], "edit_request": "x"}}', "a.prompt: is empty"),
        ('{"a": {"prompt": ["x"]}}', "a.edit_request: must be text"),
        ('{"a": {"prompt": ["x"], "edit_request": "x", "edit": "y"}}', "a.edit: unknown key"),
        ('{"a": {"prompt": ["x"], "edit_request": "x"}, "a": {}}', "a: appears twice"),
        ('["x", {}]', "row 2: must have prompt and edit_request"),
        ('["x", 3]', "row 2: must be text"),
        ('{"constitutions": [{"critic": "x"}]}', "constitutions.0.revision: must be text"),
        ('{"constitutions": ["x"]}', "constitutions.0: must be an object"),
        ('{"criteria": ["x", {}]}', "criteria.1.comparative: must be text"),
        ('{"criteria": ["x"], "guidelines": "y"}', "guidelines: must be a list"),
        ('{"criteria": []}', "holds no principles"),
        ("[" * 100000, "not JSON that can be read"),
        ("9" * 5000, "not JSON that can be read"),
        ('["\\n\\nHuman: hi\\n\\nAssistant: hello\\n\\nCritiqueRequest: x"]', "row 1: is a few-shot transcript"),
        ('{"a": {"prompt": ["Human: hi", "Assistant: ho"], "edit_request": "x"}}', "a.prompt: is a few-shot"),
        ('["x", "Human: hi", "Assistant: ho"]', "items 2 and 3: are turns of a few-shot transcript"),
        ('["Choose the \\ud800 answer."]', "must be text in UTF-8"),
        ('[{"prompt": "Human: hi", "corrects": ["a"], "incorrects": ["b"]}]', "row 1: is a few-shot example"),
        ('[{"role": "user", "content": "x"}]', "row 1: is a few-shot example"),
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


# ------------------------------------------------------------------------------------------------ other shapes
KIND = ("Point out what is unkind.", "Write it again kindly.")


def texts(path):
    return [(p.id, p.critique_request, p.revision_request) for p in load_constitution(str(path)).principles]


def test_langchain_as_a_list_and_by_name(tmp_path):
    request = {"critique_request": KIND[0], "revision_request": KIND[1]}
    for content in ([{"name": "Kind!", **request}], {"Kind!": request}):
        assert texts(written(tmp_path / "c.json", content)) == [("kind", *KIND)]
    assert texts(written(tmp_path / "c.json", [request])) == [("principle_1", *KIND)]


def test_llm_swarm_without_its_examples(tmp_path):
    content = {"constitutions": [{"critic": KIND[0], "revision": KIND[1]}] * 2, "system_chat": [["hi", "hello"]]}
    path = written(tmp_path / "c.json", content | {"system_prompt": "x"})
    assert texts(path) == [("principle_1", *KIND), ("principle_2", *KIND)]


def test_constitutional_evals(tmp_path):
    content = {
        "schema_version": "1.1",
        "id": "mine",
        "version": "1.2.0",
        "license": "CC-BY-4.0",
        "summary": "x",
        "criteria": [
            "Criterion 1 for Mine: prefer the response that is kinder",
            {"comparative": "Prefer the response that is more honest.", "reasoning": "r", "scenarios": ["s"]},
        ],
        "voices": {"first_person": ["I am kind."], "second_person": ["You are kind."]},
        "guidelines": ["Kindness does not justify a lie."],
    }
    constitution = load_constitution(str(written(tmp_path / "c.json", content)))
    assert (constitution.name, constitution.version) == ("mine", "1.2.0")
    assert [(p.id, p.comparison, p.category, p.priority) for p in constitution.principles] == [
        ("criterion_1", "Prefer the response that is kinder", "harm_avoidance", "safety"),
        ("criterion_2", "Prefer the response that is more honest.", "harm_avoidance", "safety"),
        (
            "guideline_1",
            "Which answer better follows this: Kindness does not justify a lie.",
            "edge_cases",
            "guidelines",
        ),
    ]
    assert constitution.principles[0].source == "c.json: criterion 1, CC-BY-4.0"


def test_names_in_other_scripts_and_names_that_become_one_id(tmp_path):
    request = {"prompt": "say what is unkind", "edit_request": "Write again."}
    path = written(tmp_path / "c.json", {name: request for name in ("无害", "Harm 1", "harm-1", "harm_1", "Güte")})
    principles = load_constitution(str(path)).principles
    assert [p.id for p in principles] == ["principle_1", "harm_1", "harm_1_2", "harm_1_3", "gute"]
    assert [p.source for p in principles][:3] == ["c.json: 无害", "c.json: Harm 1", "c.json: harm-1"]


def test_lists_of_comparisons_can_be_combined(tmp_path):
    files = [written(tmp_path / "a.json", ["Which is kinder?"]), written(tmp_path / "b.json", ["Which is truer?"])]
    ids = [p.id for p in parse_constitution(tree_of(files), tmp_path).principles]
    assert ids == ["comparison_1", "comparison_1_2"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path, encoding):
    (tmp_path / "c.json").write_text('["Which answer is kinder?"]', encoding=encoding)
    assert load_constitution(str(tmp_path / "c.json")).principles[0].comparison == "Which answer is kinder?"


@pytest.mark.parametrize(
    ("name", "num_revising", "num_comparing"),
    [
        ("cases/constitutions/anchor.yaml", 0, 1),
        ("cases/constitutions/bom.json", 0, 1),
        ("cases/constitutions/ccai.csv", 0, 1),
        ("cases/constitutions/chinese.json", 1, 0),
        ("cases/constitutions/collide.json", 2, 0),
        ("cases/constitutions/h4.json", 1, 0),
        ("cases/constitutions/langchain.json", 1, 0),
        ("cases/constitutions/langchain_dict.json", 1, 0),
        ("cases/constitutions/str_prompt.json", 1, 0),
        ("data/constitutions/kindness.json", 0, 8),
        ("data/constitutions/loyalty-to-user.json", 0, 1),
        ("data/constitutions/scientific-rationalism.json", 0, 1),
    ],
)
def test_files_of_others_are_read(shared_file, name, num_revising, num_comparing):
    constitution = load_constitution(str(shared_file(name)))
    assert (len(constitution.for_revision), len(constitution.for_comparison)) == (num_revising, num_comparing)
