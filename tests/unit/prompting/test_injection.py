"""Answers that imitate the question around them: the template's tokens stay the same as with harmless text."""

import pytest

from benchmarks.injection import ATTACKS
from rlaif.prompting.dialogues import dialogue
from rlaif.prompting.questions import DEFAULT, LETTERS, Question, QuestionTemplate, read_template
from rlaif.prompting.tokenization import Pieces, encode, letter_ids, neutralize
from rlaif.records import Turn
from tests.tiny_models import tiny_tokenizer
from tests.tricky_tokenizers import bpe, chat, prefixed, spaced

CLEAN = "I would rather not say"
OTHER_WORDING = """\
Dialogue so far:{conversation}

Criterion: {comparison}

First choice (A): {answer_a}
Second choice (B): {answer_b}

VERDICT ="""

TOKENIZERS = {"bytes": tiny_tokenizer, "merging": bpe, "chat": chat, "spaced": spaced, "prefixed": prefixed}
FORMS = [
    (format, name)
    for format in ("human_assistant", "chat_template")
    for name in TOKENIZERS
    if format == "human_assistant" or name == "chat"
]


@pytest.fixture(params=FORMS, ids=lambda form: "-".join(form), scope="module")
def form(request):
    format, name = request.param
    tokenizer = TOKENIZERS[name]()
    return tokenizer, dialogue(format, tokenizer)


@pytest.fixture(params=["ours", "other wording"])
def template(request, tmp_path) -> QuestionTemplate:
    if request.param == "ours":
        return DEFAULT
    (tmp_path / "template.txt").write_text(OTHER_WORDING)
    return read_template(str(tmp_path / "template.txt"))


def question(template: QuestionTemplate, said: str, slot_a: str, slot_b: str) -> Question:
    turns = (Turn(role="human", text=said), Turn(role="assistant", text=said), Turn(role="human", text="And?"))
    return Question(
        template=template, turns=turns, comparison="Which answer is less harmful?", slot_a=slot_a, slot_b=slot_b
    )


def delimiters(tokenizer, asked: Pieces, texts: tuple[str, ...]) -> list[list[int]]:
    """Token ids of each piece that is none of ``texts``, in whose chat form special tokens are broken."""
    said = {*texts, *(neutralize(tokenizer, text) for text in texts)}
    return [encode(tokenizer, Pieces((piece,))) for piece in asked if piece.strip() not in said]


@pytest.mark.parametrize("attack", ATTACKS)
def test_delimiters_are_those_of_harmless_text(form, template, attack):
    tokenizer, layout = form
    for rationale in (None, attack):
        asked = layout.choice(question(template, attack, attack, attack), rationale)
        clean = layout.choice(question(template, CLEAN, CLEAN, CLEAN), rationale and CLEAN)
        texts = template.defuse(attack).strip(), CLEAN, "And?"
        assert delimiters(tokenizer, asked, texts) == delimiters(tokenizer, clean, texts)
        assert len(asked) == len(clean)
        assert letter_ids(tokenizer, asked, LETTERS)[1] == letter_ids(tokenizer, clean, LETTERS)[1]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_holds_what_the_template_says(form, template, attack):
    """Neither as words, nor as the tokens of those words in the template."""
    tokenizer, _ = form
    text = template.defuse(attack)
    ids = encode(tokenizer, f" {text}")
    for forged in ("(A)", "(B)", template.closing.strip(), "Human:", "Assistant:"):
        assert forged.lower() not in text.lower()
        for spelling in (encode(tokenizer, forged), encode(tokenizer, f" {forged}")):
            assert tokenizer.unk_token_id in spelling or not contains(ids, spelling)
    assert not set(ids) & set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def contains(ids: list[int], sought: list[int]) -> bool:
    return any(ids[i : i + len(sought)] == sought for i in range(len(ids) - len(sought) + 1))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_turn_cannot_begin_another_one(form, attack):
    """Headings and control tokens are as many as with harmless text."""
    tokenizer, layout = form
    controls = [encode(tokenizer, f"\n\n{name}:") for name in ("Human", "Assistant", "Critique", "Revision")]
    controls += [[id] for id in tokenizer.all_special_ids if id != tokenizer.unk_token_id]

    def counts(said: str) -> list[int]:
        ids = encode(tokenizer, layout.prompt((Turn(role="human", text=said),)))
        return [sum(ids[i : i + len(c)] == c for i in range(len(ids))) for c in controls]

    assert counts(f"so {attack} yes") == counts(f"so {CLEAN} yes")


def test_harmless_brackets_and_colons_stay():
    assert DEFAULT.defuse("Note (see below): yes, 3:1 (or so)") == "Note (see below): yes, 3:1 (or so)"
