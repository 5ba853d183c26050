import pytest

from rlaif.constitution.principles import load_constitution
from rlaif.errors import ConfigError

ASKED = "Which answer better follows this: "


def comparisons(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [(p.id, p.comparison) for p in load_constitution(str(path)).principles]


# ------------------------------------------------------------------------------------------------------ tables
POLIS = """comment-id,datetime,agrees,disagrees,moderated,comment-body
0,Fri Jul 07 2023,188,12,1,The AI should be helpful.
1,Fri Jul 07 2023,260,46,-1,Buy my book.
2,Fri Jul 07 2023,320,34,0,"The AI should respect freedom, equality and fair treatment of all people in the world."
"""


def test_statements_of_collective_constitutional_ai(tmp_path):
    assert comparisons(tmp_path, "c.csv", POLIS) == [
        ("the_ai_should_be_helpful", f"{ASKED}The AI should be helpful."),
        (
            "the_ai_should_respect_freedom_equality",
            f"{ASKED}The AI should respect freedom, equality and fair treatment of all people in the world.",
        ),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.csv", "statement\nBe kind.\n"),
        ("c.csv", "\ufeffStatements;votes\n\nBe kind.;3\n"),
        ("c.csv", "sep=;\nvotes;Statement\n3;Be kind.\n"),
        ("c.tsv", "id\tprinciple\n1\tBe kind.\n\t\n"),
        ("c.csv", 'Statement,note\r\n"Be kind.",\r\n'),
        ("c.md", "# Ours\n\nWe say:\n\n- Be **kind**.\n"),
        ("c.txt", "Be kind."),
    ],
)
def test_one_statement_in_many_files(tmp_path, name, text):
    assert comparisons(tmp_path, name, text) == [("be_kind", f"{ASKED}Be kind.")]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.csv", "a,b\n1,2\n", "no column of statements among a, b; call it statement"),
        ("c.csv", "The AI should be kind.\nThe AI should be honest.\n", "the first row must name the column"),
        ("c.csv", "statement\n", "holds no principles"),
        ("c.csv", "Statement,statements\nBe kind.,Be true.\n", "column statement is there 2 times"),
        ("c.csv", "statement,moderated,Moderated\nBe kind.,1,-1\n", "column moderated is there 2 times"),
        ("c.csv", "", "is empty"),
        ("c.md", "# Kindness\n\nBe kind.\n", "has no list; write each principle as an item"),
        ("c.txt", "\n \n", "holds no principles"),
        ("c.txt", "Human: hi\nAssistant: ho\n", "few-shot transcript"),
        ("c.md", "- Human: hi\n  Assistant: ho\n", "item 1: is a few-shot transcript"),
        ("c.md", "- Be kind.\n- Human: hi\n- Assistant: ho\n", "items 2 and 3: are turns of a few-shot transcript"),
        ("c.csv", "statement\nUser: hi\nAssistant: ho\n", "items 1 and 2: are turns of a few-shot transcript"),
    ],
)
def test_a_file_without_principles_is_one_clear_mistake(tmp_path, name, text, told):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_constitution(str(tmp_path / name))
    assert str(error.value).startswith(f"{tmp_path / name}: ") and told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_text_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "c.txt").write_bytes(b"Be kind to caf\xe9s.")
    with pytest.raises(ConfigError, match=r"c\.txt: not UTF-8 text"):
        load_constitution(str(tmp_path / "c.txt"))


# ------------------------------------------------------------------------------------------------------- lists
MARKDOWN = """---
title: Ours
---
# Values

Some words about them.

1. Choose the answer that is
   more honest.
2. Be fair, see [the charter](https://example.org):
   - Treat people *alike*.
   - [x] Do not judge.

```
- not an item
```

Which answers we like:
* Which answer is kinder?
"""


def test_items_of_markdown(tmp_path):
    assert comparisons(tmp_path, "c.md", MARKDOWN) == [
        ("choose_the_answer_that_is_more_honest", "Choose the answer that is more honest."),
        ("treat_people_alike", f"{ASKED}Treat people *alike*."),
        ("do_not_judge", f"{ASKED}Do not judge."),
        ("which_answer_is_kinder", "Which answer is kinder?"),
    ]


def test_text_by_line_by_paragraph_and_by_item(tmp_path):
    two = [("be_kind", f"{ASKED}Be kind."), ("be_fair", f"{ASKED}Be fair.")]
    for text in ("Be kind.\nBe fair.\n", "Be\nkind.\n\nBe fair.\n", "Ours:\n- Be kind.\n- Be fair.\n"):
        assert comparisons(tmp_path, "c.txt", text) == two
    assert [id for id, _ in comparisons(tmp_path, "c.txt", "Be kind.\nBe kind\n友好\n")] == [
        "be_kind",
        "be_kind_2",
        "principle_3",
    ]


def test_an_id_does_not_change_with_statements_before_it(tmp_path):
    (_, two), (three,) = (
        [id for id, _ in comparisons(tmp_path, "c.txt", text)] for text in ("Be kind.\nBe fair.\n", "Be fair.\n")
    )
    assert two == three
