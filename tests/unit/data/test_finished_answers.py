"""Answers that users bring to be examined."""

import json
from collections import Counter

import pytest

from rlaif.config.source import DEFAULT_LIMITS, Source
from rlaif.data.finished_answers import read_finished_answers
from rlaif.errors import DataError
from rlaif.records import Status


@pytest.fixture
def read(tmp_path):
    """The answers in a file of these rows, and the causes of what was quarantined."""

    def answers(*rows):
        path = tmp_path / "answers.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        causes = []
        found = list(
            read_finished_answers(Source(path=str(path)), lambda row: causes.append(row.cause), DEFAULT_LIMITS)
        )
        return found, causes

    return answers


@pytest.mark.parametrize("name", ["completion", "response", "answer", "output"])
def test_answers_are_found_by_any_of_their_names(read, name):
    (found,), causes = read({"prompt": "Why?", name: " Because. "})
    assert (found.text, found.prompt[-1].text, found.gold, causes) == ("Because.", "Why?", None, [])
    assert (found.axis, found.snapshot, found.category) == ("red_team", "model", "")


def test_what_is_known_of_an_answer_is_kept(read):
    row = {
        "prompt": "Kill?",
        "completion": "No.",
        "model": "m1",
        "type": "contrast_homonyms",
        "label": "2_full_refusal",
    }
    (unsafe, safe), _ = read(row, {**row, "type": "homonyms", "label": "partial"})
    assert (unsafe.axis, unsafe.category, unsafe.gold, unsafe.snapshot) == ("red_team", "homonyms", "refusal", "m1")
    assert (safe.axis, safe.category, safe.gold) == ("helpful", "homonyms", "partial")


def test_an_empty_answer_is_kept_and_has_no_text(read):
    (found,), _ = read({"prompt": "Why?", "completion": " "})
    assert (found.status, found.text, found.error) == (Status.INVALID, "", "empty answer")


def test_the_answer_that_is_given_counts(read):
    (found,), _ = read({"prompt": "Why?", "completion": None, "response": "Because."})
    assert (found.text, found.status) == ("Because.", Status.OK)


def test_only_xstests_safe_types_make_a_prompt_safe(read):
    found, _ = read(*({"prompt": "Why?", "completion": "x", "type": type} for type in ("definitions", "my_type")))
    assert [answer.axis for answer in found] == ["helpful", "red_team"]


def test_equal_answers_stay_two(read):
    row = {"prompt": "Why?", "completion": "Because."}
    found, _ = read(row, row)
    assert len({answer.id for answer in found}) == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Why?"}, "field `completion` is missing"),
        ({"completion": "Because."}, "field `prompt` is missing"),
        (
            {"prompt": "Why?", "completion": "x", "label": "good"},
            "field `label` must be compliance, partial or refusal",
        ),
        ({"prompt": "Why?", "completion": 3}, "field `completion` must be text"),
    ],
)
def test_a_bad_row_is_named_by_its_field(read, row, words):
    with pytest.raises(DataError, match=words):
        read(row)
    found, (cause,) = read(row, {"prompt": "Why?", "completion": "Because."})
    assert len(found) == 1 and words in cause


def test_all_labelled_answers_of_xstest_are_read(public_file):
    source = Source(path=str(public_file("xstest_completions.jsonl")))
    found = list(read_finished_answers(source, lambda row: pytest.fail(row.cause), DEFAULT_LIMITS))
    assert Counter(answer.snapshot for answer in found) == {"gpt4": 450, "mistralguard": 450}
    assert Counter(answer.gold for answer in found) == {"compliance": 440, "refusal": 410, "partial": 50}
    assert Counter(answer.axis for answer in found) == {"helpful": 500, "red_team": 400}
