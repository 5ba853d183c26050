import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.dialogues.conversations import parse_conversation, parse_dialogue
from rlaif.data.dialogues.structures import parse_literal
from rlaif.data.files import objects
from rlaif.data.rows import BadRow
from rlaif.records import Turn

MESSAGES = [{"role": "user", "content": 'How do I "cut" a wire?\nIt\'s red.'}, {"role": "assistant", "content": "a"}]
TURNS = (Turn(role="human", text=MESSAGES[0]["content"]), Turn(role="assistant", text="a"))
SHARE_GPT = [{"from": {"user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]} for m in MESSAGES]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(MESSAGES),
        f"\n {json.dumps(MESSAGES, indent=2)}\n",
        json.dumps(json.dumps(MESSAGES)),
        json.dumps({"messages": MESSAGES}),
        json.dumps({"id": 3, "conversations": SHARE_GPT}),
        json.dumps(SHARE_GPT),
        repr(MESSAGES),
        repr(tuple(MESSAGES)),
    ],
)
def test_messages_stored_as_text_are_parsed(text):
    assert parse_conversation(text, "prompt") == TURNS


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(MESSAGES)[:-9],
        json.dumps(MESSAGES)[:-1] + ", ",
        str(np.array(MESSAGES, dtype=object)),
        repr(np.array(MESSAGES, dtype=object)),
        json.dumps(MESSAGES).replace('"', '\\"'),
        json.dumps(MESSAGES).replace('"', '""'),
        json.dumps(MESSAGES).replace('"', "&quot;"),
        "\n".join(map(json.dumps, MESSAGES)),
        json.dumps([*MESSAGES, {"id": 3}]),
        f"```json\n{json.dumps(MESSAGES)}\n```",
        "- role: user\n  content: q\n- role: assistant\n  content: a",
        "[HumanMessage(content='q'), AIMessage(content='a')]",
        "[ChatMessage(role='user', content='q')]",
    ],
)
def test_what_looks_like_messages_but_cannot_be_parsed_is_refused_by_name(text):
    for parse in (parse_conversation, parse_dialogue):
        with pytest.raises(BadRow, match="field `x` looks like messages stored as text"):
            parse(text, "x")


@pytest.mark.parametrize("text", ['{"a": 1}', "[1, 2]", '["a text"]', "['a text']", '[{"type": "text"}]', "[]", " {} "])
def test_other_structure_is_no_prompt_but_may_be_an_answer(text):
    with pytest.raises(BadRow, match=r"field `x` holds (a list|an object) stored as text"):
        parse_conversation(text, "x")
    assert parse_dialogue(text, "x") is None


@pytest.mark.parametrize(
    "text",
    [
        'What is wrong with [{"role": "user", "content": "q"}]?',
        "[Verse 1]\nLa la",
        "{name} is a placeholder.",
        '"Quoted," he said.',
        "(An aside) role: user",
        "[x for x in y]",
        "- a list\n- of lines",
        "3",
        "[" * 2_000,
    ],
)
def test_prose_stays_prose(text):
    assert parse_conversation(text, "x") == (Turn(role="human", text=text),)


@pytest.mark.parametrize("content", [json.dumps(MESSAGES), repr(MESSAGES), '[{"type": "text", "text": "q"}]'])
def test_messages_inside_of_a_message_are_refused(content):
    with pytest.raises(BadRow, match=r"field `x\[0\].content` holds messages stored as text"):
        parse_conversation([{"role": "user", "content": content}], "x")


@pytest.mark.parametrize(
    "text",
    [
        "[f'" + "{1}" * 100 + "']",
        "[{'role': 'user', 'content': Rf\"{1}\"}]",
        '[\'a\', f"""{1}"""]',
        "['a', " + "1, " * 100_000 + "]",
        "[" + "'a' " * 100_000 + "]",
    ],
)
def test_what_takes_long_to_compile_is_not_compiled(text, monkeypatch):
    monkeypatch.setattr(objects.ast, "parse", lambda *args, **kwargs: pytest.fail("it is compiled"))
    assert parse_literal(text) is None


@pytest.mark.parametrize("content", ["the line f'(x) of f", 'f"(x)', "rf'", "a 'f\" f'", "x" * 200_000, "f'" * 60_000])
def test_what_only_looks_like_an_f_string_is_read(content):
    (turn,) = parse_conversation(str([{"role": "user", "content": content}]), "x")
    assert turn.text == content


def test_nesting_without_end_is_no_traceback():
    for text in ("[" * 100_000, '[{"role": ' * 10_000):
        try:
            parse_conversation(text, "x")
        except BadRow:
            continue


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "text", "messages", "x"]), inner)
    ),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()}), min_size=1
)


@given(messages, st.sampled_from([json.dumps, repr, lambda value: json.dumps(value, ensure_ascii=False, indent=1)]))
def test_messages_read_the_same_as_text_and_as_messages(value, dump):
    try:
        expected = parse_conversation(value, "x")
    except BadRow:
        return
    assert parse_conversation(dump(value), "x") == expected


@given(values, st.sampled_from([json.dumps, repr, str]))
def test_no_structure_is_ever_prose(value, dump):
    """A list or an object in a text is read as messages or refused, and raises nothing but BadRow."""
    text = dump(value)
    try:
        turns = parse_conversation(text, "x")
    except BadRow:
        return
    assert not isinstance(value, list | dict) or not value or turns != (Turn(role="human", text=text.strip()),)


@given(messages, st.integers(0, 200), st.sampled_from([json.dumps, repr]))
def test_messages_cut_short_are_never_prose(value, length, dump):
    text = dump(value)[:length]
    if len(text) < len('[{"content"'):  # so short a text says nothing
        return
    try:
        turns = parse_conversation(text, "x")
    except BadRow:
        return
    assert turns == parse_conversation(value, "x")
