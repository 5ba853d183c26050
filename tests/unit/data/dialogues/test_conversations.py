import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.dialogues.conversations import parse_conversation, parse_transcript, prompt_turns
from rlaif.data.rows import BadRow
from rlaif.prompting.dialogues import HumanAssistant
from rlaif.records import Turn


def human(text):
    return Turn(role="human", text=text)


def assistant(text):
    return Turn(role="assistant", text=text)


def test_turns_keep_colons_blank_lines_and_speakers_names():
    text = (
        "\n\nHuman: a list: one\n\ntwo: three\n\nAssistant: Human: I am not.\nAssistant: nor I\n\nHuman: and Human: x"
    )
    assert parse_transcript(text) == (
        human("a list: one\n\ntwo: three"),
        assistant("Human: I am not.\nAssistant: nor I"),
        human("and Human: x"),
    )


plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":")).map(str.strip)


@given(st.lists(st.tuples(plain, plain), min_size=1))
def test_a_rendered_conversation_is_read_back(exchanges):
    turns = tuple(turn for said, answered in exchanges for turn in (human(said), assistant(answered)))
    assert parse_transcript(HumanAssistant().conversation(turns)) == turns


def test_plain_text_is_one_human_turn():
    assert parse_conversation(" Note: why? \n", "prompt") == (human("Note: why?"),)


def test_messages_and_transcripts_agree():
    listed = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert parse_conversation(listed, "prompt") == parse_conversation(
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "prompt"
    )


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (3, "`prompt` must be text or a list of messages, not a number"),
        ({"role": "user"}, "not an object"),
        ("", "`prompt` is empty"),
        ("  \n", "`prompt` is empty"),
        ([], "`prompt` is empty"),
        ([{"role": "system", "content": ""}], "`prompt` is empty"),
        ("\ud800", "not valid Unicode"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "x"}], "`prompt`: a system turn after"),
        (
            [{"role": "narrator", "content": "x"}],
            r"`prompt\[0\].role` must be system, user or assistant, not 'narrator'",
        ),
        ([{"role": "tool", "content": "12C"}], r"`prompt\[0\]`: tool turn"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}], r"`prompt\[0\]`: tool turn"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], r"content\[0\]` must be text, not image_url"),
        ({"messages": [{"role": "user", "content": "x"}], "system": ["x"]}, "`prompt.system` must be text"),
        ([{"role": ["user"], "content": "x"}], r"`prompt\[0\].role`"),
        ([{"role": "user", "content": None}], r"`prompt\[0\].content` must be text, not null"),
        (["hello"], r"`prompt\[0\]` must be a message"),
    ],
)
def test_what_is_no_conversation_is_a_bad_row(value, cause):
    with pytest.raises(BadRow, match=cause):
        parse_conversation(value, "prompt")


def test_an_invitation_to_answer_is_not_a_turn():
    assert prompt_turns(parse_transcript("\n\nHuman: a\n\nAssistant:"), "prompt") == (human("a"),)


@pytest.mark.parametrize(
    ("turns", "cause"),
    [
        ((human("a"), assistant("b")), "must end with a human turn"),
        ((assistant(""),), "must end with a human turn"),
        ((human("a"), assistant("b"), human("")), "the last human turn is empty"),
    ],
)
def test_a_prompt_waits_for_the_assistant(turns, cause):
    with pytest.raises(BadRow, match=cause):
        prompt_turns(turns, "prompt")
