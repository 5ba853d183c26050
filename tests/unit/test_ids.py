"""Ids are built and parsed by one grammar, whatever characters file names hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.ids import evaluation_id, group_id, group_id_of, prompt_id_of, refresh_id, revision_id, row_id, sample_id

files = st.text(st.sampled_from("ab.:#/@0 \n-_é"), min_size=1)
numbers = st.integers(0, 10**6)
axes = st.sampled_from(["red_team", "helpful"])


def test_ids_are_spelled_as_documented():
    prompt = row_id("red_team.jsonl", 17)
    assert prompt == "red_team.jsonl:17"
    assert sample_id(prompt, 2) == "red_team.jsonl:17#2"
    assert evaluation_id(prompt, "helpful", 1) == "red_team.jsonl:17#helpful.1"
    assert revision_id(prompt, 0) == "red_team.jsonl:17/0"
    assert sample_id(group_id(prompt, "red_team", 3, 25), 1) == "red_team.jsonl:17@red_team.3.25#1"
    assert refresh_id(prompt, 2, 9) == "red_team.jsonl:17@refresh.2.9"


@given(file=files, row=numbers, axis=axes, batch=numbers, position=numbers, member=numbers)
def test_a_rollout_leads_back_to_its_group_and_prompt(file, row, axis, batch, position, member):
    prompt = row_id(file, row)
    group = group_id(prompt, axis, batch, position)
    rollout = sample_id(group, member)
    assert group_id_of(rollout) == group
    assert prompt_id_of(rollout) == prompt


@given(first=st.tuples(files, numbers, numbers, numbers), second=st.tuples(files, numbers, numbers, numbers))
def test_different_rollouts_have_different_ids(first, second):
    one, other = [
        sample_id(group_id(row_id(file, row), "helpful", 0, position), member)
        for file, row, position, member in (first, second)
    ]
    assert (one == other) == (first == second)


@pytest.mark.parametrize("id", ["a.jsonl:1", "a#b.jsonl:1", "a.jsonl:1@refresh.2.9"])
def test_what_is_no_rollout_has_no_group(id):
    with pytest.raises(ValueError, match="not the id of a rollout"):
        group_id_of(id)


def test_a_sample_outside_a_batch_has_no_prompt_to_read_back():
    with pytest.raises(ValueError, match="not the id of a rollout"):
        prompt_id_of("a@b.jsonl:1#0")
