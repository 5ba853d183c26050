"""What ``survey`` says of a source is what the readers do with it."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif.data.comparisons import read_comparisons
from rlaif.data.overview import content_of, survey
from rlaif.data.pairs import read_pairs
from rlaif.data.prompts import read_prompts
from rlaif.data.readers import READERS
from rlaif.data.votes import read_votes
from rlaif.errors import DataError

READ = {
    "prompts": lambda source, quarantine: read_prompts(source, "red_team", quarantine),
    "pairs": read_pairs,
    "comparisons": read_comparisons,
    "votes": read_votes,
}
TEXT = st.sampled_from(["", "q", "a", "\n\nHuman: q\n\nAssistant: a", "Human: x", "\u200b", "[1]"])
VALUE = TEXT | st.none() | st.integers() | st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), max_size=2)
NAMES = ("prompt", "chosen", "rejected", "answer_1", "answer_2", "question", "answers", "messages", "system")
ROWS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUE) | st.just("no object"), min_size=1, max_size=6)


def written(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def use(overview, name):
    return next(use for use in overview.uses if use.name == name)


def test_every_reader_has_its_use():
    assert set(READERS) == set(READ)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(ROWS)
def test_each_use_is_what_its_reader_makes_of_the_source(tmp_path, rows):
    source = written(tmp_path / "a.jsonl", *rows)
    overview = survey(source)
    assert overview.num_rows == len(rows)
    for name, read in READ.items():
        quarantined, refusal, records = [], None, []
        try:
            records = list(read(source, quarantined.append))
        except DataError as error:
            refusal = str(error)
        found = use(overview, name)
        assert (found.num_usable, found.refusal) == (len(records), refusal)
        assert found.num_usable + found.num_quarantined == len(rows)
        assert list(map(content_of, found.records)) == list(map(content_of, records[:10]))
        assert sum(found.shapes.values()) == found.num_usable


def test_a_source_with_a_hopeless_file_is_refused_as_a_run_refuses_it(tmp_path):
    written(tmp_path / "a.jsonl", {"prompt": "q", "chosen": "a", "rejected": "b"})
    written(tmp_path / "b.jsonl", {"prompt": "q"}, {"prompt": "r"})
    overview = survey(str(tmp_path))
    assert use(overview, "prompts").refusal is None and [u.name for u in overview.usable] == ["prompts"]
    with pytest.raises(DataError) as error:
        list(read_pairs(str(tmp_path), lambda row: None))
    assert use(overview, "pairs").refusal == str(error.value)
    assert use(overview, "pairs").num_usable == 1


def test_rows_are_counted_by_cause_whatever_the_place_in_them(tmp_path):
    bad = [{"messages": [{"role": "user", "content": "q"}] * n + [{"role": "nobody", "content": ""}]} for n in range(5)]
    prompts = use(survey(written(tmp_path / "a.jsonl", {"prompt": "q"}, *bad)), "prompts")
    (cause,) = prompts.causes.values()
    assert (cause.num, cause.row, cause.file) == (5, 2, str(tmp_path / "a.jsonl"))
    assert cause.words.startswith("field `messages[0].role` must be")


def test_repeated_rows_and_pairs_without_a_difference_are_counted(tmp_path):
    rows = [{"prompt": "q", "chosen": "a", "rejected": r} for r in ("b", "b", "a", "a")]
    pairs = use(survey(written(tmp_path / "a.jsonl", *rows)), "pairs")
    assert (pairs.num_usable, pairs.num_repeated, pairs.num_same) == (4, 2, 2)


def test_shapes_say_where_a_row_was_read_and_in_what_form(tmp_path):
    rows = [
        {"prompt": "q"},
        {"prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r"},
        {"messages": [{"role": "user", "content": "q"}]},
        {"messages": json.dumps([{"role": "user", "content": "q"}])},
        {"prompt": "<|im_start|>user\nq<|im_end|>\n"},
    ]
    assert dict(use(survey(written(tmp_path / "a.jsonl", *rows)), "prompts").shapes) == {
        "`prompt` (plain text)": 1,
        "`prompt` (a transcript)": 1,
        "`messages` (messages)": 1,
        "`messages` (messages stored as text)": 1,
        "`prompt` (a rendered chat template)": 1,
    }


def test_thoughts_that_are_left_out_are_counted(tmp_path):
    thought = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    rows = [{"messages": thought}, {"prompt": thought[:1], "chosen": thought[1:], "rejected": "b"}, {"prompt": "q"}]
    overview = survey(written(tmp_path / "a.jsonl", *rows))
    assert (use(overview, "prompts").num_with_thoughts, use(overview, "pairs").num_with_thoughts) == (1, 1)


def test_a_file_that_breaks_off_has_no_use(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,x\nq,1\n"r,2\n')
    overview = survey(str(tmp_path / "a.csv"))
    assert "row 2: a quote is opened and never closed" in overview.stopped
    assert not overview.usable and use(overview, "prompts").num_usable == 1
