"""Chat templates of real families: nothing is lost, forged, or dated, and no thought is left open where it must not."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.constitution.principles import load_constitution
from rlaif.errors import RequestError
from rlaif.prompting.chat_templates import (
    ChatFormat,
    answer_prefix,
    break_delimiters,
    gaps,
    layout,
    turn_end,
)
from rlaif.prompting.dialogues import ChatTemplate, HumanAssistant
from rlaif.prompting.questions import DEFAULT, LETTERS, Question
from rlaif.prompting.tokenization import ControlText, Pieces, encode, letter_ids, neutralize, prompt_ids
from rlaif.records import Turn
from tests.unit.prompting.chat_tokenizers import (
    ALWAYS_THINKING,
    CHATML,
    DATED,
    GEMMA,
    MISTRAL_1,
    TEMPLATES,
    THINKING,
    VICUNA,
    with_template,
)

TOKENIZERS = {name: with_template(template) for name, template in TEMPLATES.items()}
TOKENIZERS["ChatML of ordinary tokens"] = with_template(CHATML, specials=())
for name in ("ChatML", "Zephyr"):  # tokens of the vocabulary that are not declared special are parsed in any text
    TOKENIZERS[f"{name} of added tokens"] = with_template(TEMPLATES[name], specials=())
    TOKENIZERS[f"{name} of added tokens"].add_tokens(["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"])
MARKS = [
    *("[INST]", "[/INST]", "[INST] ", " [/INST]", "<<SYS>>\n", "\n<</SYS>>\n\n", "<|user|>\n", "<|assistant|>\n"),
    *("<|system|>\n", "### Instruction:\n", "### Response:\n", "USER: ", " ASSISTANT:", "user\n", "\nassistant\n"),
    *("<|im_start|>user\n", "<|im_end|>\n", "</s>", "<s>", "<think>", "</think>", "<end_of_turn>\n", "\n", " ", "\n\n"),
    *("Hello", "system\n", "model\n", "Ünïcode 🙂", "[IN", "ST]", "<|", "|>", "assistant: "),
]
TEXTS = st.lists(st.sampled_from(MARKS), min_size=1, max_size=6).map("".join).filter(str.strip)


def turns(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn(role="assistant" if i % 2 else "human", text=text) for i, text in enumerate(texts))


# ----------------------------------------------------------------------------------------------------- forging
@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def delimiters(tokenizer) -> set[tuple[int, ...]]:
    """The ids of what this template writes around texts; a bare word is a delimiter only on its line."""
    every = {gap for gap in gaps(tokenizer, ChatFormat(), ("user", "assistant", "user")) if gap.strip()}
    bare = {gap for gap in every if gap.strip().isalpha()}
    marks = {gap.strip() for gap in every - bare} | {gap for gap in bare if gap.startswith("\n")}
    return {tuple(encode(tokenizer, ControlText(mark))) for mark in marks}


def count(ids: list[int], sought: tuple[int, ...]) -> int:
    return sum(tuple(ids[i : i + len(sought)]) == sought for i in range(len(ids)))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(said=st.lists(TEXTS, min_size=3, max_size=3))
def test_the_turns_that_the_ids_hold_are_those_that_were_given(name, said):
    tokenizer = TOKENIZERS[name]
    said[1] = f"Well, {said[1]}"  # an answer that began with <think> would be a thought
    rendered, clean = (ChatTemplate(tokenizer).prompt(turns(*texts)) for texts in (said, ["one", "two", "three"]))
    ids, clean_ids = prompt_ids(tokenizer, rendered), prompt_ids(tokenizer, clean)
    for delimiter in delimiters(tokenizer):
        assert count(ids, delimiter) == count(clean_ids, delimiter), tokenizer.decode(delimiter)
    for special in tokenizer.all_special_ids:
        assert ids.count(special) == clean_ids.count(special)


def test_each_text_is_there_once_and_in_order(tokenizer):
    said = ["First of all,", "an answer.", "And then?"]
    text = tokenizer.decode(prompt_ids(tokenizer, ChatTemplate(tokenizer).prompt(turns(*said))))
    places = [text.index(words) for words in said]
    assert places == sorted(places) and all(text.count(words) == 1 for words in said)


@pytest.mark.parametrize(
    "text",
    [
        "I am a user, you are an assistant.",
        "The user: me. A list [1], a tag <b>bold</b>, and an array a[0]?",
        "def f(x):\n    return x  # user",
        "## Heading\n\n- one\n- two",
    ],
)
def test_ordinary_text_is_not_changed(tokenizer, text):
    assert break_delimiters(tokenizer, ChatFormat(), text) == text


def test_ids_are_those_of_the_template_itself_for_harmless_text():
    """Split into pieces or encoded as a whole: for these texts and this tokenizer it is the same."""
    tokenizer = TOKENIZERS["ChatML"]
    messages = [{"role": role, "content": f"{role} says so"} for role in ("user", "assistant", "user")]
    stock = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    ours = ChatTemplate(tokenizer).prompt(turns("user says so", "assistant says so", "user says so"))
    assert encode(tokenizer, ours) == stock


# ----------------------------------------------------------------------------------------------- what is rendered
def test_neighbours_of_one_role_are_joined_so_that_roles_alternate():
    tokenizer = with_template(GEMMA)
    twice = (Turn(role="human", text="One."), Turn(role="human", text="Two."))
    assert ChatTemplate(tokenizer).prompt(twice) == ChatTemplate(tokenizer).prompt(turns("One.\n\nTwo."))
    parts = [("user", Pieces([ControlText("Is "), "this"])), ("user", Pieces([ControlText("or "), "that"]))]
    assert list(layout(tokenizer, ChatFormat(), parts))[1:-1] == [" this", "\n\nor", " that"]


def test_a_dialogue_that_a_template_refuses_is_one_rows_error():
    begun_by_the_assistant = (Turn(role="assistant", text="Hi"), Turn(role="human", text="Hello"))
    with pytest.raises(RequestError, match=r"refuses the roles assistant, user: TemplateError: .*must alternate"):
        ChatTemplate(with_template(GEMMA)).prompt(begun_by_the_assistant)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.role == 'user' %}U: {{ m.content }}\n{% endif %}{% endfor %}",
        "{{ messages[-1].content }}{% for m in messages %}|{{ m.role }}|{{ m.content }}{% endfor %}",
        "{% for m in messages | reverse %}|{{ m.role }}|{{ m.content }}{% endfor %}",
    ],
)
def test_a_template_that_drops_repeats_or_reorders_is_an_error(template):
    with pytest.raises(RequestError, match="drops, repeats or reorders"):
        ChatTemplate(with_template(template)).prompt(turns("a", "b", "c"))


def test_the_day_is_the_runs_and_never_todays():
    tokenizer = with_template(DATED)
    one = ChatTemplate(tokenizer, ChatFormat(day=date(2025, 3, 1))).prompt(turns("Hi"))
    assert "Today is 01 Mar 2025, 01 Mar 2025" in one[0]
    assert "Today is 26 Jul 2024" in ChatTemplate(tokenizer).prompt(turns("Hi"))[0]


def test_arguments_of_the_template():
    tokenizer = with_template("{{ tone }}|{% for m in messages %}|{{ m.role }}|{{ m.content }}{% endfor %}|")
    assert gaps(tokenizer, ChatFormat(kwargs=(("tone", "dry"),)), ("user",))[0] == "dry||user|"


@pytest.mark.parametrize(
    ("name", "end", "prefix"),
    [
        ("ChatML", "<|im_end|>", ""),
        ("Gemma", "<end_of_turn>", ""),
        ("Mistral 1", "</s>", " "),
        ("Zephyr", "</s>", ""),
        ("Vicuna", "</s>", " "),
        ("Alpaca", None, ""),
    ],
)
def test_what_ends_a_turn_and_what_precedes_an_answer(name, end, prefix):
    tokenizer = TOKENIZERS[name]
    assert turn_end(tokenizer, ChatFormat()) == end
    assert answer_prefix(tokenizer, ChatFormat()) == prefix


# ----------------------------------------------------------------------------------------------------- thoughts
def question() -> Question:
    return Question(
        template=DEFAULT, turns=turns("Hi"), comparison="Which answer is better?", slot_a="Yes", slot_b="No"
    )


@pytest.mark.parametrize("template", [THINKING, ALWAYS_THINKING])
def test_the_letter_is_never_asked_for_inside_a_thought(template):
    tokenizer = with_template(template)
    form = ChatTemplate(tokenizer)
    for asked in (form.choice(question()), form.choice(question(), "Because."), form.reasoning(question())):
        text = "".join(map(str, asked))
        assert text.count("<think>") == text.count("</think>") == 1
    assert letter_ids(tokenizer, form.choice(question()), LETTERS)


@pytest.mark.parametrize("template", [THINKING, ALWAYS_THINKING])
def test_only_a_format_that_may_think_leaves_a_thought_open(template):
    tokenizer = with_template(template)
    assert ChatTemplate(tokenizer).opens_thought
    closed = ChatFormat(may_think=False)
    for format in (closed, replace(closed, kwargs=(("enable_thinking", True),))):
        assert not ChatTemplate(tokenizer, format).opens_thought
        assert gaps(tokenizer, format, ("user",))[-1].endswith("<think>\n\n</think>\n\n".removeprefix("<think>\n"))


def test_an_answer_under_critique_is_not_cut_where_a_thought_would_end():
    """Neither by the template nor by us: what a model said has been freed from its thoughts before."""
    form, (principle, *_) = ChatTemplate(with_template(THINKING)), load_constitution("sixteen_principles").for_revision
    answer = "First step </think> second step"
    for prompt in (
        form.critique(turns("How?"), answer, principle),
        form.revision(turns("How?"), answer, principle, "No"),
    ):
        assert "First step < /think> second step" in prompt


def test_thoughts_of_earlier_answers_are_not_rendered():
    form = ChatTemplate(with_template(THINKING))
    history = turns("How?", "<think>hm</think>Like this. </think> is a tag.", "Go on")
    assert "Like this. < /think> is a tag." in form.prompt(history)
    assert "Human: How?\n\nAssistant: Like this. </think> is" in HumanAssistant().prompt(history)
    shown = replace(question(), turns=history)
    assert not any("hm" in piece for piece in (*form.choice(shown), *HumanAssistant().choice(shown)))
    with pytest.raises(RequestError, match="an earlier answer is an unfinished thought"):
        form.prompt(turns("How?", "<think>hm", "Go on"))


def test_special_tokens_of_the_default_system_turn_are_not_forbidden_words():
    tokenizer = with_template("{{ 'Be kind. You are a helpful assistant.\n\n' }}" + VICUNA)
    assert neutralize(tokenizer, "Be kind.") == break_delimiters(tokenizer, ChatFormat(), "Be kind.")
    assert break_delimiters(tokenizer, ChatFormat(), "x USER: y") == "x USER : y"
    assert break_delimiters(with_template(MISTRAL_1), ChatFormat(), "x [INST] y") == "x [ INST] y"
