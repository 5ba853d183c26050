"""Work on a row is linear in its size, and an engine's part of it is bounded by what its longest prompt costs."""

import asyncio
import contextlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.algorithms.preference_model import pretraining_pairs
from rlaif.constitution.public_texts import id_of_statement
from rlaif.data import duplicates
from rlaif.data.dialogues.conversations import parse_conversation
from rlaif.data.duplicates import prompt_key
from rlaif.data.rows import BadRow
from rlaif.errors import RequestError
from rlaif.prompting import chat_templates, questions, tokenization
from rlaif.prompting.caches import MAX_CACHED_CHARS
from rlaif.prompting.chat_templates import break_delimiters, has_system_role
from rlaif.prompting.dialogues import ChatTemplate, HumanAssistant
from rlaif.prompting.questions import DEFAULT, QuestionTemplate
from rlaif.prompting.thoughts import without_thoughts
from rlaif.prompting.tokenization import (
    MAX_CHARS_PER_TOKEN,
    encode,
    fit_turns,
    fit_turns_aside,
    neutralize,
    prompt_ids,
)
from rlaif.records import ScoredAnswer, ScoredAnswers, Turn
from tests.growth import FACTOR, check_linear, must_end
from tests.tricky_tokenizers import bpe, chat
from tests.unit.prompting.chat_tokenizers import ALPACA, BARE_WORDS, with_template

PARTS = (
    *("\n", " ", "\n ", "\t\n", "Human:", "\n\nHuman: a", "\n\nHuman: a\n\nAssistant: b", "Assistant", "\nAssistant :"),
    *(
        "\\n",
        "\\nHuman:",
        "\\n\\nHuman: a\\n\\nAssistant: b",
        "Q ",
        "\nA ",
        "USER: a ASSISTANT: b ",
        "</s>",
        "<s>",
        "[INST]",
    ),
    *(
        "[INST] a [/INST] b</s>",
        "<|im_end|>",
        "<|im_start|>user\na<|im_end|>\n",
        "### Instruction:\n",
        "(",
        "( A ",
        '"',
    ),
    *(
        "<think>",
        "</think>",
        "<think>a</think>b",
        "[",
        "{",
        '[{"role": ',
        "\\",
        "The answer is",
        "Options\n",
        "> ",
        "é",
        "\u0301\u0316",
        "\uff9e\u0301",
        "\u0f73\u0f71",
    ),
)
SIZE = 16_000


def conversation(num_turns, text="a"):
    return tuple(Turn(role=("human", "assistant")[i % 2], text=text) for i in range(num_turns - 1 + num_turns % 2))


def read(text):
    with contextlib.suppress(BadRow):
        parse_conversation(text, "prompt")


WORK = {
    "reading": read,
    "comparing": lambda text: prompt_key((Turn(role="human", text=text),)),
    "as a principle's id": lambda text: id_of_statement(text, 1),
    "as Human/Assistant": lambda text: HumanAssistant().prompt((Turn(role="human", text=text),)),
    "in a chat template": lambda text: break_delimiters.__wrapped__(WITH_WORDS, chat_templates.DEFAULT_FORMAT, text),
    "in Alpaca's template": lambda text: break_delimiters.__wrapped__(ALPACA_S, chat_templates.DEFAULT_FORMAT, text),
    "in a question": lambda text: questions._defused.__wrapped__(DEFAULT.text, text),
    "in a question with spaced colons": lambda text: questions._defused.__wrapped__(SPACED.text, text),
    "without thoughts": without_thoughts,
}
WITH_WORDS, ALPACA_S = with_template(BARE_WORDS), with_template(ALPACA)
SPACED = QuestionTemplate(DEFAULT.text.replace("Options:", "Les options :"))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("work", WORK)
def test_work_on_a_text_is_linear(work, part):
    for before, after in (("", "x"), ("Human: a\n\n", ""), ("x", "\n\nHuman: b")):
        small, large = (before + part * (size // len(part)) + after for size in (SIZE, FACTOR * SIZE))
        check_linear(WORK[work], small, large, what=part)


@given(st.text(st.sampled_from("ae が\u304b\u3099ﾊﾞ가\u1100\u1161\u11a8\u0301\u0316ﬁ漢=\u0338"), max_size=40))
def test_a_text_is_normalised_in_parts_as_it_is_as_a_whole(text):
    assert duplicates._normalized(text) == unicodedata.normalize("NFKC", text)


def answers_to_a_question(num):
    answers = tuple(ScoredAnswer(text=str(i), votes=i % 50, accepted=False) for i in range(num))
    return ScoredAnswers(id="q", source_file="f", source_row=1, question="q", answers=answers)


def test_a_question_of_many_answers_is_paired_in_one_pass():
    scored = answers_to_a_question(2_000)
    pairs = list(pretraining_pairs(scored))
    assert len(pairs) == 2_000 - sum(answer.votes <= 0 for answer in scored.answers)
    assert all(better != worse for better, worse in pairs)
    questions = {str(num): answers_to_a_question(num) for num in (SIZE, FACTOR * SIZE)}
    check_linear(lambda num: list(pretraining_pairs(questions[num])), *questions, what="answers")


# -------------------------------------------------------------------------------------------------------- fitting
class Counted:
    """Renders as a dialogue format does, and counts."""

    def __init__(self, form):
        self.form, self.num_chars, self.num_calls = form, 0, 0

    def __call__(self, turns):
        self.num_calls += 1
        self.num_chars += sum(len(turn.text) for turn in turns)
        return self.form.prompt(turns)


FORMS = {"human_assistant": lambda tokenizer: HumanAssistant(), "chat_template": ChatTemplate}
ROWS = {
    "100,000 short turns": conversation(100_000),
    "100,000 empty turns": conversation(100_000, ""),
    "1,000 long turns": conversation(1_001, "a cat " * 2_000),
    "a long turn": (Turn(role="human", text="a cat " * 500_000),),
    "line breaks": (Turn(role="human", text="\n" * 3_000_000),),
    "a long first turn": (Turn(role="human", text="\n" * 3_000_000), *conversation(5)[1:]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", ROWS)
def test_a_long_conversation_costs_what_the_longest_prompt_costs(row, form):
    tokenizer, max_tokens = chat(), 256
    render = Counted(FORMS[form](tokenizer))
    kept, ids, dropped = fit_turns(ROWS[row], render, tokenizer, max_tokens)
    assert dropped and len(ids) <= max_tokens and kept[-1].role == "human"
    assert ids == prompt_ids(tokenizer, render.form.prompt(kept))
    assert render.num_calls < 30
    assert render.num_chars < 30 * max_tokens * MAX_CHARS_PER_TOKEN


@pytest.mark.parametrize("num_turns", [1, 3, 5, 21, 22, 99])
@pytest.mark.parametrize("max_tokens", [20, 31, 64, 150, 1000])
def test_bisection_keeps_what_trying_each_would_keep(num_turns, max_tokens):
    tokenizer, render = bpe(), HumanAssistant().prompt
    turns = tuple(Turn(role=("human", "assistant")[i % 2], text="cat" * (1 + i * 7 % 5)) for i in range(num_turns)) + (
        (Turn(role="human", text="?"),) if num_turns % 2 == 0 else ()
    )
    for system in ((), (Turn(role="system", text="Be kind."),)):
        suffixes = [turns[i:] for i in range(len(turns)) if i == 0 or turns[i].role == "human"]
        fitting = [s for s in suffixes if len(prompt_ids(tokenizer, render((*system, *s)))) <= max_tokens]
        try:
            kept, _, _ = fit_turns((*system, *turns), render, tokenizer, max_tokens)
        except RequestError:
            assert not fitting
            continue
        assert not fitting or kept == (*system, *fitting[0])


def test_what_cannot_be_shortened_is_refused_without_being_rendered():
    tokenizer, render = chat(), Counted(HumanAssistant())
    turns = (Turn(role="system", text="x" * 1_000_000), Turn(role="human", text="Hi"))
    with pytest.raises(RequestError, match="1,000,000 characters besides"):
        fit_turns(turns, render, tokenizer, 256)
    with pytest.raises(RequestError, match="the answers have 1,000,000 characters, too many for 256 tokens"):
        asyncio.run(fit_turns_aside(turns[1:], render, tokenizer, 256, "x" * 1_000_000))
    assert render.num_calls == 0


def test_the_event_loop_goes_on_while_a_long_row_is_fitted():
    tokenizer = chat()

    async def beats() -> int:
        task = asyncio.create_task(fit_turns_aside(ROWS["line breaks"], HumanAssistant().prompt, tokenizer, 16_384))
        num = 0
        while not task.done():
            await asyncio.sleep(0)
            num += 1
        await task
        return num

    assert asyncio.run(beats()) > 10


def test_texts_in_threads_are_encoded_as_ever():
    """Control tokens and plain text at the same time: how one is encoded must not leak into the other."""
    tokenizer = chat()
    form = ChatTemplate(tokenizer)
    turns = (Turn(role="human", text="a<|im_end|>b" * 400),)
    expected = prompt_ids(tokenizer, form.prompt(turns))

    async def all_at_once():
        return await asyncio.gather(
            *(asyncio.to_thread(lambda: prompt_ids(tokenizer, form.prompt(turns))) for _ in range(200))
        )

    assert all(ids == expected for ids in asyncio.run(all_at_once()))


# --------------------------------------------------------------------------------------------------------- caches
def test_caches_hold_no_long_texts():
    tokenizer = chat()
    caches = [tokenization._encoded, questions._defused, questions._conversation, break_delimiters, chat_templates.gaps]
    long, turns = "a cat " * MAX_CACHED_CHARS, conversation(999)
    has_system_role(tokenizer, chat_templates.DEFAULT_FORMAT)
    before = [cache.cache_info().currsize for cache in caches]
    encode(tokenizer, long)
    ChatTemplate(tokenizer).prompt((Turn(role="human", text=long),))
    ChatTemplate(tokenizer).prompt(turns)
    list(DEFAULT.fill((Turn(role="human", text=long),), "?", {"answer_a": long, "answer_b": long}))
    after = [cache.cache_info().currsize for cache in caches]
    assert sum(after) - sum(before) < 12  # what a template writes around a text


# ------------------------------------------------------------------------------------------- what a space can break
@pytest.mark.parametrize("special", ["!", " ", "  ", "\n", " !", "a b", "ab ", " ab", "( A"])
def test_breaking_special_tokens_ends_whatever_they_are(special):
    tokenizer = bpe()
    tokenizer.add_special_tokens({"additional_special_tokens": [special, "<|x|>"]})
    text = f"{special}{special} a b {special}<|x|>x  ab ab\n!"
    with must_end():
        broken = neutralize(tokenizer, text)
    assert "<|x|>" not in broken and broken.replace(" ", "") == text.replace(" ", "")
    assert len(special.strip()) < 2 or special not in broken
    assert neutralize(tokenizer, broken) == broken


def test_what_never_ends_is_a_failure():
    with pytest.raises(AssertionError, match="has not ended"), must_end(0.05):
        while True:
            pass


@pytest.mark.parametrize("mark", [">", "U", "§", "ü", "--"])
def test_breaking_delimiters_ends_whatever_they_are(mark):
    template = f"{{% for m in messages %}}{mark}\n{{{{ m.content }}}}\n\n{{% endfor %}}{mark}\n"
    tokenizer = with_template(template, ())
    with must_end():
        broken = break_delimiters(tokenizer, chat_templates.DEFAULT_FORMAT, f"a\n{mark}\nb\n {mark} \n{mark}")
    assert all(line.strip() != mark for line in broken.split("\n"))
    assert break_delimiters(tokenizer, chat_templates.DEFAULT_FORMAT, broken) == broken
