import pytest

from rlaif.data.dialogues.messages import parse_messages
from rlaif.records import Turn

ASKED = (Turn(role="human", text="q"),)


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": "q"}],
        [{"role": "User ", "content": "q"}],
        [{"from": "human", "value": "q"}],
        [{"role": "human", "text": "q"}],
        [{"role": None, "content": None, "from": "human", "value": "q"}],
        [{"role": "user", "content": [{"type": "text", "text": "q", "image_url": None}]}],
        [{"role": "user", "parts": ["q"]}],
        [{"role": "system", "content": " "}, {"role": "user", "content": "q"}],
        [[("role", "user"), ("content", "q")]],
        {"role": "user", "content": "q"},
        {"role": ["user"], "content": ["q"]},
        {"model": "m", "messages": [{"role": "user", "content": "q"}], "system": None, "tools": []},
    ],
)
def test_messages_are_read_in_every_spelling(value):
    assert parse_messages(value, "messages") == ASKED


def test_parts_of_text_are_lines():
    (turn,) = parse_messages([{"role": "user", "content": ["a", {"type": "text", "text": "b"}]}], "messages")
    assert turn.text == "a\nb"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return 1\n", "    return 1"),
        ("\n\n\tif x:\n\t\ty  \n", "\tif x:\n\t\ty"),
        (" an answer ", "an answer"),
        ("\n \n  two\n", "  two"),
        (" \n", ""),
    ],
)
def test_indented_code_stays_indented(text, kept):
    (turn,) = parse_messages([{"role": "assistant", "content": text}], "messages")
    assert turn.text == kept
