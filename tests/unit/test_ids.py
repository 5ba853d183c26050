"""Ids are built and parsed by one grammar, whatever characters file names hold."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.config.schema import Labelling
from rlaif.ids import (
    evaluation_id,
    fingerprint,
    group_id,
    group_id_of,
    place_id,
    prompt_id_of,
    refresh_id,
    revision_id,
    row_id,
    sample_id,
)
from rlaif.records import Prompt, Turn

contents = st.text(st.sampled_from("0123456789abcdef"), min_size=16, max_size=16)
occurrences = st.integers(1, 10**6)
numbers = st.integers(0, 10**6)
axes = st.sampled_from(["red_team", "helpful"])


def test_ids_are_spelled_as_documented():
    assert place_id("red_team.jsonl", 17) == "red_team.jsonl:17"
    prompt = row_id("3f2a9c01d2e4a0b1", 1)
    assert prompt == "3f2a9c01d2e4a0b1"
    assert row_id("3f2a9c01d2e4a0b1", 2) == "3f2a9c01d2e4a0b1~2"
    assert sample_id(prompt, 2) == "3f2a9c01d2e4a0b1#2"
    assert evaluation_id(prompt, "helpful", 1) == "3f2a9c01d2e4a0b1#helpful.1"
    assert revision_id(prompt, 0) == "3f2a9c01d2e4a0b1/0"
    assert sample_id(group_id(prompt, "red_team", 3, 25), 1) == "3f2a9c01d2e4a0b1@red_team.3.25#1"
    assert refresh_id(prompt, 2, 9) == "3f2a9c01d2e4a0b1@refresh.2.9"


@given(content=contents, occurrence=occurrences, axis=axes, batch=numbers, position=numbers, member=numbers)
def test_a_rollout_leads_back_to_its_group_and_prompt(content, occurrence, axis, batch, position, member):
    prompt = row_id(content, occurrence)
    group = group_id(prompt, axis, batch, position)
    rollout = sample_id(group, member)
    assert group_id_of(rollout) == group
    assert prompt_id_of(rollout) == prompt


@given(
    first=st.tuples(contents, occurrences, numbers, numbers), second=st.tuples(contents, occurrences, numbers, numbers)
)
def test_different_rollouts_have_different_ids(first, second):
    one, other = [
        sample_id(group_id(row_id(content, occurrence), "helpful", 0, position), member)
        for content, occurrence, position, member in (first, second)
    ]
    assert (one == other) == (first == second)


# ------------------------------------------------------------------------------------------------- fingerprints
PROMPT = Prompt(
    id="p", source_file="a.jsonl", source_row=3, axis="red_team", turns=(Turn(role="human", text="Hi\x1f"),)
)


def test_a_fingerprint_tells_content_apart_but_not_places():
    assert fingerprint(PROMPT) == fingerprint(replace(PROMPT, source_file="b.jsonl", source_row=9))
    others = [
        replace(PROMPT, turns=(Turn(role="human", text="Hi"),)),
        replace(PROMPT, turns=(Turn(role="assistant", text="Hi\x1f"),)),
        replace(PROMPT, axis="helpful"),
        replace(PROMPT, id="q"),
    ]
    assert len({fingerprint(row) for row in (PROMPT, *others)}) == 5


def test_parts_of_a_fingerprint_are_not_run_together():
    assert len({fingerprint(*parts) for parts in (("a", "b"), ("ab",), ("a", "", "b"), (["a", "b"],))}) == 4


def test_a_setting_with_its_default_value_does_not_count():
    assert fingerprint(Labelling()) == fingerprint(Labelling(principles=1))
    assert fingerprint(Labelling()) != fingerprint(Labelling(principles=2))


def test_what_has_no_content_of_its_own_has_no_fingerprint():
    with pytest.raises(TypeError, match="no fingerprint of object"):
        fingerprint(object())


@pytest.mark.parametrize("id", ["a.jsonl:1", "a#b.jsonl:1", "a.jsonl:1@refresh.2.9"])
def test_what_is_no_rollout_has_no_group(id):
    with pytest.raises(ValueError, match="not the id of a rollout"):
        group_id_of(id)


def test_a_sample_outside_a_batch_has_no_prompt_to_read_back():
    with pytest.raises(ValueError, match="not the id of a rollout"):
        prompt_id_of("a@b.jsonl:1#0")
