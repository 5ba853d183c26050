import random

import pytest
import yaml

from rlaif.constitution.principles import load_constitution
from rlaif.errors import ConfigError
from rlaif.lint.draft import draft_of
from rlaif.lint.structure import MAX_NEIGHBOURS, RULES, _near_equal, findings, lint
from tests.growth import FACTOR, check_linear


def codes(text: str) -> set[str]:
    return {finding.code for finding in findings(draft_of(yaml.safe_load(text), "c.yaml"))}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_passes_and_fails_its_examples(rule):
    assert rule.code not in codes(rule.passing)
    assert rule.code in codes(rule.failing)


def test_codes_are_unique_and_in_order():
    assert [rule.code for rule in RULES] == sorted({rule.code for rule in RULES})


@pytest.mark.parametrize("name", ["sixteen_principles", "nine_points", "helpful_honest"])
def test_nothing_is_found_in_the_shipped_sets(name):
    assert lint(name)[1] == ()


def test_all_findings_come_at_once_with_file_principle_and_field(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("""
name: n
category_weights: {style: 1}
principles:
  - {id: a, category: honesty, source: s, comparison: "Which answer is honest?", weight: -1}
  - {id: a, category: truth, source: s, comparison: "Which answer is honest?"}
  - {id: b, category: honesty, source: s, critique_request: x, colour: red}
  - only text
""")
    _, found = lint(str(path))
    lines = [str(finding) for finding in found]
    for expected in (
        "C001 error {}: version: is missing",
        "C001 error {}: principles.1.category: must be one of",
        "C001 error {}: b.colour: unknown key",
        "C001 error {}: principles.3: must be keys and values",
        "C003 error {}: principles.0.id: a appears 2 times",
        "C004 error {}: principles.1.comparison: says the same as principles.0.comparison",
        "C005 error {}: category_weights.style: must be one of",
        "C005 error {}: principles.0.weight: must be at least 1e-06, not -1",
        "C006 error {}: b: critique_request and revision_request go together",
        "C007 error {}: principles: none has category helpfulness",
        "C008 warning {}: principles: none has category",
        "C101 warning {}: principles.0.comparison: compares nothing",
    ):
        assert any(line.startswith(expected.format(path)) for line in lines), (expected, lines)


def test_what_a_rule_of_its_own_finds_is_no_mistake_of_shape_too(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "{name: n, version: '1', principles: [{id: a, category: honesty, source: s, critique_request: Flaws}]}"
    )
    codes = [finding.code for finding in lint(str(path))[1] if finding.place.endswith(": a")]
    assert codes == ["C006"]


@pytest.mark.parametrize("text", ["", "3", "[]", "principles: 3", "principles: {}", "principles: [[]]", "1: 2"])
def test_whatever_the_file_holds_is_found_wrong(text):
    assert "C001" in codes(text)


@pytest.mark.parametrize(
    "principle",
    [
        "{id: a}",
        "{id: a, category: honesty, source: s}",
        "{id: a, category: honesty, source: s, critique_request: x}",
        "{id: A B, category: honesty, source: s, comparison: x}",
        "{id: a, category: [honesty], source: s, comparison: x}",
        "{id: a, category: honesty, source: s, comparison: x, weight: .nan}",
        "{id: a, category: honesty, source: s, comparison: 3}",
    ],
)
def test_what_does_not_load_has_an_error(tmp_path, principle):
    path = tmp_path / "c.yaml"
    good = "{id: g, category: harm_avoidance, source: s, comparison: Which is kinder}"
    helpful = "{id: h, category: helpfulness, source: s, comparison: Which helps more}"
    path.write_text(f"name: n\nversion: '1'\nprinciples: [{good}, {helpful}]")
    assert not any(finding.severity == "error" for finding in lint(str(path))[1])
    load_constitution(str(path))
    path.write_text(f"name: n\nversion: '1'\nprinciples: [{good}, {helpful}, {principle}]")
    assert any(finding.severity == "error" for finding in lint(str(path))[1])
    with pytest.raises(ConfigError):
        load_constitution(str(path))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Which answer is less harmful?", "Choose the answer that is less harmful.", True),
        ("Which answer is less harmful?", "Which answer is less hateful?", False),
        ("Which answer is less harmful?", "Which answer is more harmful?", False),
    ],
)
def test_near_equal_texts(one, other, same):
    rows = [{"id": "a", "comparison": one}, {"id": "b", "comparison": other}]
    assert ("C004" in codes(yaml.safe_dump({"principles": rows}))) == same


def mixtures(num):
    """Texts of the same few words, of which none says the same as another."""
    words = [f"w{i}" for i in range(36)]
    return [(f"{i}", frozenset(random.Random(i).sample(words, 18))) for i in range(num)]


def test_texts_of_the_same_few_words_are_compared_with_few_others():
    said = {text: mixtures(500 * len(text)) for text in ("x", "x" * FACTOR)}
    check_linear(lambda text: list(_near_equal(said[text])), *said, what="texts of few words")


def test_equal_texts_are_found_among_any_number_of_others():
    said = mixtures(3 * MAX_NEIGHBOURS)
    assert ("again", "7") in _near_equal([*said, ("again", said[7][1])])
