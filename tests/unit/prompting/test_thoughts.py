"""What thinking models say, without what they think."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.prompting.thoughts import THOUGHT_TAG, closing_of, opens_thought, without_thoughts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Just an answer.", "Just an answer."),
        ("<think>\nThe user wants...\n</think>\n\nAn answer.", "An answer."),
        ("<think></think>An answer.", "An answer."),
        ("Okay, the user wants...</think>An answer.", "An answer."),
        ("[THINK]hm[/THINK]An answer.", "An answer."),
        ("<Thinking>hm</Thinking> One <thinking>hm</thinking>two.", "One two."),
        ("◁think▷hm◁/think▷An answer.", "An answer."),
        ("<seed:think>hm</seed:think>An answer.", "An answer."),
        ("<scratchpad>hm</scratchpad>\nAn answer.", "An answer."),
        ("<think>one</think>An <think>two</think>answer.", "An answer."),
        ("<think>hm</think>Say </think> again.", "Say </think> again."),
        ("<think>The user wants", None),
        ("Well, <think>the user wants", None),
        ("<think>one</think><think>two", None),
        ("", ""),
    ],
)
def test_what_is_said(text, said):
    assert without_thoughts(text) == said


def test_a_thought_that_the_prompt_has_opened():
    assert without_thoughts("hm</think>\nYes.", opened=True) == "Yes."
    assert without_thoughts("<think>hm</think>\nYes.", opened=True) == "Yes."
    assert without_thoughts("The user wants to", opened=True) is None


@given(st.text(), st.text(), st.sampled_from(["think", "thinking", "reasoning", "reflection"]))
def test_nothing_of_a_thought_is_left(thought, said, name):
    if not (THOUGHT_TAG.search(thought) or THOUGHT_TAG.search(said)):
        assert without_thoughts(f"<{name}>{thought}</{name}>{said}") == said.strip()
        assert without_thoughts(f"{thought}</{name}>{said}", opened=True) == said.strip()
        assert without_thoughts(f"<{name}>{thought}") is None


@pytest.mark.parametrize(
    ("prompt", "closing"),
    [
        ("assistant\n<think>\n", "</think>\n\n"),
        ("assistant\n<think>", "\n</think>\n\n"),
        ("[THINK]", "\n[/THINK]\n\n"),
        ("◁think▷", "\n◁/think▷\n\n"),
        ("assistant\n<think>\n\n</think>\n\n", ""),
        ("assistant\n", ""),
    ],
)
def test_what_closes_a_thought(prompt, closing):
    assert closing_of(prompt) == closing and opens_thought(prompt) == bool(closing)
    assert not opens_thought(prompt + closing)
