import tracemalloc
from dataclasses import replace

import pytest

from rlaif.records import Prompt, Turn
from rlaif.stages.kept_prompts import KeptPrompts


def prompt(i: int, text: str) -> Prompt:
    return Prompt(
        id=f"p:{i}", source_file="p.jsonl", source_row=i, axis="red_team", turns=(Turn(role="human", text=text),)
    )


def test_prompts_are_kept_in_order_whatever_they_hold(tmp_path):
    given = [prompt(i, text) for i, text in enumerate(("a", "b\nc\0", "\u2028 \U0001f600", "", "x" * 100_000))]
    given.append(replace(given[0], id="p:5", turns=(Turn(role="system", text="s"), *given[0].turns)))
    kept = KeptPrompts(given, tmp_path)
    assert len(kept) == 6 and list(kept) == given
    assert [kept[i] for i in (5, 0, 3)] == [given[i] for i in (5, 0, 3)]
    for outside in (-1, 6):
        with pytest.raises(IndexError):
            kept[outside]


def test_no_prompts_are_a_sequence_too(tmp_path):
    assert not len(KeptPrompts((), tmp_path)) and list(KeptPrompts((), tmp_path)) == []


def test_memory_does_not_hold_the_texts(tmp_path):
    """20 MB of texts in 10,000 prompts; 220 of their characters took 0.6 KB each in memory."""
    tracemalloc.start()
    kept = KeptPrompts((prompt(i, f"{i} " * 400) for i in range(10_000)), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept) == 10_000 and peak < 2**20, peak


def test_nothing_is_left_in_the_directory(tmp_path):
    kept = KeptPrompts([prompt(0, "a")], tmp_path)
    assert list(tmp_path.iterdir()) == [] and kept[0].turns[0].text == "a"
