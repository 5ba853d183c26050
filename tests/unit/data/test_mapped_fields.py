"""Fields that a configuration names are read in place of those that are recognised."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif.config.source import MAPPED_FIELDS, Source
from rlaif.data.comparisons import read_comparisons
from rlaif.data.mapped_fields import value_at
from rlaif.data.overview import survey
from rlaif.data.pairs import read_pairs
from rlaif.data.prompts import read_prompts
from rlaif.data.rows import rows_in
from rlaif.data.votes import read_votes
from rlaif.errors import DataError
from rlaif.records import Turn

FAST = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)


def written(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def prompts(source, quarantine=pytest.fail):
    return [prompt.turns for prompt in read_prompts(source, "red_team", quarantine)]


def human(text):
    return (Turn(role="human", text=text),)


@pytest.mark.parametrize(
    ("fields", "path", "value"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a.b": {"c.d": 1}}, "a.b.c.d", 1),
        ({"a": [{"b": 1}, {"b": 2}]}, "a.1.b", 2),
        ({"a": [1, 2]}, "a.-1", 2),
        ({"a": '{"b": [1, {"c": "x"}]}'}, "a.b.1.c", "x"),
        ({"a": [("b", 1)]}, "a.b", 1),
        ({"a": None}, "a", None),
    ],
)
def test_a_path_leads_to_a_value(fields, path, value):
    assert value_at(fields, path) == value


@pytest.mark.parametrize("path", ["b", "a.x", "a.2", "a.-3", "a.b", "a.0.b", "", ".", "a.", "a.0.", "a.+1"])
def test_a_path_that_leads_nowhere(path):
    assert value_at({"a": [1, 2]}, path) is value_at({}, "nowhere")


def test_named_fields_win_and_others_are_ignored(tmp_path):
    row = {"prompt": "not this", "request": {"text": "this"}, "tools": [{"name": "f"}], "image": "x.png"}
    source = Source(path=written(tmp_path / "a.jsonl", row), prompt="request.text")
    assert prompts(source) == [human("this")]


def test_every_reader_takes_named_fields(tmp_path):
    row = {"q": "q?", "x": [{"t": "good"}, {"t": "bad"}], "p": 0.25, "all": [{"text": t, "votes": 1} for t in "ab"]}
    file = written(tmp_path / "a.jsonl", row)
    (pair,) = read_pairs(Source(path=file, prompt="q", chosen="x.0.t", rejected="x.1.t"), pytest.fail)
    assert (pair.prompt, pair.chosen, pair.rejected) == (human("q?"), "good", "bad")
    named = Source(path=file, prompt="q", answer_1="x.1.t", answer_2="x.0.t", gold="p")
    (comparison,) = read_comparisons(named, pytest.fail)
    assert (comparison.answer_1, comparison.answer_2, comparison.gold) == ("bad", "good", 0.25)
    (question,) = read_votes(Source(path=file, question="q", answers="all"), pytest.fail)
    assert [answer.text for answer in question.answers] == ["a", "b"]
    (prompt,) = prompts(Source(path=file, instruction="q", input="x.0.t"))
    assert prompt == human("q?\n\ngood")


def test_a_row_without_a_named_field_is_quarantined_by_name(tmp_path):
    bad = []
    file = written(tmp_path / "a.jsonl", {"a": "x"}, {"b": "y", "prompt": "z"})
    assert prompts(Source(path=file, prompt="a"), bad.append) == [human("x")]
    assert [row.cause for row in bad] == ["prompt=a: not in this row, which has `b`, `prompt`"]


@pytest.mark.parametrize("rows", [[{"request": {"text": "x"}, "n": 1}], [{"request": {"text": "x"}}, {"n": 1}]])
def test_a_field_in_no_row_is_an_error_that_names_what_was_probably_meant(tmp_path, rows):
    source = Source(path=written(tmp_path / "a.jsonl", *rows), prompt="request.txt")
    with pytest.raises(DataError) as error:
        prompts(source, lambda row: None)
    said = "prompt=request.txt: no row has this field; did you mean request.text? The rows have `request`, `n`"
    assert str(error.value) == f"{source.path}: {said}" == survey(source).stopped


def test_a_field_that_the_reader_could_do_without_must_be_in_a_row_too(tmp_path):
    file = written(tmp_path / "a.jsonl", {"q": "q", "a": "a", "b": "b"})
    with pytest.raises(DataError, match="gold=verdict: no row has this field"):
        list(read_comparisons(Source(path=file, prompt="q", answer_1="a", answer_2="b", gold="verdict"), pytest.fail))


def test_a_file_that_cannot_be_read_is_not_blamed_on_the_names(tmp_path):
    (tmp_path / "a.jsonl").write_text("[\n")
    with pytest.raises(DataError, match="one JSON array"):
        prompts(Source(path=str(tmp_path / "a.jsonl"), prompt="a"))


def test_rows_can_be_chosen_by_keys(tmp_path):
    file = written(tmp_path / "a.jsonl", *({"q": f"{n}"} for n in range(10)))
    assert prompts(Source(path=file, prompt="q", limit="3-4")) == [human("2"), human("3")]
    assert prompts(Source(path=file, prompt="q", sample=4)) == prompts(Source(path=f"{file}#4", prompt="q"))


NAMED = ("prompt", "chosen", "rejected", "answer_1", "answer_2", "gold", "question", "answers", "messages")
VALUE = st.none() | st.text(max_size=3) | st.floats() | st.lists(st.dictionaries(st.just("text"), st.text(max_size=2)))
READERS = (read_pairs, read_comparisons, read_votes, lambda source, q: read_prompts(source, "helpful", q))


@FAST
@given(st.lists(st.dictionaries(st.sampled_from(NAMED), VALUE), min_size=1, max_size=5))
def test_rows_with_other_names_are_read_as_rows_with_the_known_ones(tmp_path, rows):
    plain = written(tmp_path / "a.jsonl", *rows)
    nested = Source(
        path=written(
            tmp_path / "b.jsonl", *({"x": [{f"my {name}": value for name, value in row.items()}]} for row in rows)
        ),
        **{name: f"x.0.my {name}" for row in rows for name in row},
    )
    for read in READERS:
        outcomes = []
        for source in (plain, nested):
            bad = []
            try:
                outcomes.append([repr(r).replace("b.jsonl", "a.jsonl") for r in read(source, bad.append)])
            except DataError:
                outcomes.append(None)
        assert outcomes[0] == outcomes[1]


PATH = st.text("ab.01-", min_size=1, max_size=4)
JSON = st.recursive(
    st.none() | st.text("ab[{1", max_size=3) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b", "0"]), inner),
    max_leaves=8,
)


@FAST
@given(st.lists(JSON, min_size=1, max_size=4), st.dictionaries(st.sampled_from(MAPPED_FIELDS), PATH, min_size=1))
def test_whatever_is_named_rows_in_are_rows_out_and_quarantined(tmp_path, rows, named):
    source = Source(path=written(tmp_path / "a.jsonl", *rows), **named)
    for read in READERS:
        bad, records = [], []
        try:
            records += read(source, bad.append)
        except DataError:
            continue
        assert len(records) + len(bad) == sum(1 for _ in rows_in(str(source)))
