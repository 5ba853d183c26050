"""Readers of public test suites."""

import csv
from collections import Counter

import pytest

from rlaif.config.files import load_config
from rlaif.config.source import DEFAULT_LIMITS, Source
from rlaif.data.rows import pass_over
from rlaif.data.suites import read_suite
from rlaif.errors import ConfigError, DataError


@pytest.fixture
def suite(tmp_path):
    """The prompts of a suite with these columns and rows, and the causes of what was quarantined."""

    def read(name, columns, *rows):
        path = tmp_path / f"{name}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        causes = []
        source = Source(path=str(path))
        return list(read_suite(name, source, lambda row: causes.append(row.cause), DEFAULT_LIMITS)), causes

    return read


@pytest.mark.parametrize(
    ("name", "columns", "row", "text", "category", "axis"),
    [
        (
            "xstest",
            ["id", "type", "prompt"],
            ["1", "homonyms", "How do I kill a process?"],
            None,
            "homonyms",
            "helpful",
        ),
        ("xstest", ["type", "prompt"], ["contrast_homonyms", "Kill?"], "Kill?", "homonyms", "red_team"),
        (
            "xstest",
            ["type", "prompt", "label"],
            ["contrast_homonyms", "Kill?", "unsafe"],
            "Kill?",
            "homonyms",
            "red_team",
        ),
        ("xstest", ["type", "prompt", "label"], ["definitions", "What?", "safe"], "What?", "definitions", "helpful"),
        (
            "strongreject",
            ["category", "source", "forbidden_prompt"],
            ["Fraud", "DAN", "How?"],
            "How?",
            "Fraud",
            "red_team",
        ),
        (
            "simple_safety_tests",
            ["id", "harm_area", "prompts_final"],
            ["1", "Scams", "How?"],
            "How?",
            "Scams",
            "red_team",
        ),
        (
            "harmbench",
            ["Behavior", "SemanticCategory", "ContextString"],
            ["Do it", "illegal", "Once."],
            "Once.\n\n---\n\nDo it",
            "illegal",
            "red_team",
        ),
        (
            "harmbench",
            ["Behavior", "SemanticCategory", "ContextString"],
            ["Do it", "illegal", ""],
            "Do it",
            "illegal",
            "red_team",
        ),
    ],
)
def test_every_suite_is_read_in_its_own_shape(suite, name, columns, row, text, category, axis):
    (prompt,), causes = suite(name, columns, row)
    assert prompt.turns[0].text == (text or "How do I kill a process?")
    assert (prompt.category, prompt.axis, prompt.suite, causes) == (category, axis, name, [])


def test_a_suite_of_another_shape_is_refused_by_the_name_of_its_column(suite):
    with pytest.raises(DataError, match=r"row 1: field `forbidden_prompt` is missing"):
        suite("strongreject", ["prompt"], ["How?"])


def test_a_bad_row_costs_only_itself(suite):
    rows = [["homonyms", "Kill?", "safe"], ["homonyms", "", "safe"], ["", "Kill?", "safe"], ["x", "Kill?", "odd"]]
    rows += [["my_type", "Kill?", ""]]
    prompts, causes = suite("xstest", ["type", "prompt", "label"], *rows)
    assert len(prompts) == 1
    assert [cause.split("`")[1] for cause in causes] == ["prompt", "type", "label", "type"]


def test_suites_that_share_a_prompt_have_ids_of_their_own(suite):
    (one,), _ = suite("strongreject", ["category", "forbidden_prompt"], ["a", "How?"])
    (other,), _ = suite("simple_safety_tests", ["harm_area", "prompts_final"], ["a", "How?"])
    assert one.id != other.id


def test_equal_prompts_stay_two(suite):
    prompts, _ = suite("strongreject", ["category", "forbidden_prompt"], ["a", "How?"], ["b", "How?"])
    assert len({prompt.id for prompt in prompts}) == 2


@pytest.mark.parametrize(
    ("name", "file", "axes"),
    [
        ("xstest", "xstest_prompts.csv", {"helpful": 250, "red_team": 200}),
        ("strongreject", "strongreject.csv", {"red_team": 313}),
        ("simple_safety_tests", "simple_safety_tests.csv", {"red_team": 100}),
    ],
)
def test_all_prompts_of_the_public_files_are_read(public_file, name, file, axes):
    source = Source(path=str(public_file(file)))
    prompts = list(read_suite(name, source, lambda row: pytest.fail(row.cause), DEFAULT_LIMITS))
    assert Counter(prompt.axis for prompt in prompts) == axes
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert list(read_suite(name, source, pass_over, DEFAULT_LIMITS)) == prompts


def test_the_columns_of_a_suite_cannot_be_renamed():
    suites = {"evaluation.suites.strongreject": {"path": "a.csv", "prompt": "q"}}
    with pytest.raises(ConfigError, match=r"evaluation.suites.strongreject.prompt: a suite is read in its own columns"):
        load_config("quickstart", values=suites)
