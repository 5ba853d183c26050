"""Small files that stand for any amount of work: each is refused in one line, or read in bounded time and memory."""

import contextlib
import math

import pytest
import yaml

from rlaif.config import strict_yaml
from rlaif.config.files import load_config
from rlaif.config.strict_yaml import MAX_MISTAKES, MAX_YAML_CHARS, parse_yaml
from rlaif.constitution.diff import diff
from rlaif.constitution.principles import MAX_PRINCIPLES, Constitution, load_constitution
from rlaif.constitution.public_files import tree_of
from rlaif.errors import ConfigError, format_value
from rlaif.lint.draft import draft_of
from rlaif.lint.structure import findings, lint
from rlaif.miniature.lexicon import SHIPPED_LEXICON, load_lexicon
from rlaif.prompting.examples import LabelExample, read_examples
from rlaif.prompting.questions import read_template
from tests.growth import FACTOR, check_linear, must_end

DEPTH = 30
ALIASES = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, DEPTH))])
KEYS = "\n".join(
    [
        "k0: &k0 {x: 1}",
        *(f"k{i}: &k{i} {{{', '.join(f'y{j}: *k{i - 1}' for j in range(10))}}}" for i in range(1, DEPTH)),
    ]
)
MERGES = "\n".join(
    ["m0: &m0 {x: 1, y: 2}", *(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}" for i in range(1, DEPTH))]
)
BOMBS = {
    "aliases": f"{ALIASES}\nname: *a{DEPTH - 1}\nseed: *a{DEPTH - 1}\nprinciples: *a{DEPTH - 1}\n",
    "aliases in keys": f"{KEYS}\nname: *k{DEPTH - 1}\nseed: *k{DEPTH - 1}\n",
    "merges": f"{MERGES}\nname: *m{DEPTH - 1}\nseed: *m{DEPTH - 1}\n",
    "depth": "seed: " + "[" * 20_000 + "]" * 20_000,
    "depth of keys": "{a: " * 20_000 + "}" * 20_000,
    "depth of blocks": "".join(" " * i + "a:\n" for i in range(1500)),
    "a list in itself": "seed: &a [*a]\nname: &b [*b]\n",
    "keys in themselves": "seed: &a {x: *a}\n",
    "an integer": f"seed: {'9' * 100_000}\nname: {'9' * 100_000}\n",
    "an integer in hexadecimal": f"seed: 0x{'f' * 100_000}\n",
    "sexagesimals": f"seed: 1{':59' * 50_000}\n",
    "sexagesimals by their tag": f"seed: !!int 1{':59' * 50_000}\nname: !!float 1{':59' * 50_000}\n",
    "a long key": f"{'k' * 500_000}: 1\n",
    "a long text": f"seed: {'k' * 500_000}\n",
    "a long file": f"# {'k' * MAX_YAML_CHARS}\nseed: 1\n",
    "many unknown keys": "".join(f"k{i}: 1\n" for i in range(5_000)),
    "empty tags": "seed: !!int ''\nname: !!binary '\\xff'\n",
}
READERS = {
    "config": load_config,
    "constitution": lambda path: load_constitution(str(path)),
    "lint": lambda path: [*map(str, lint(str(path))[1])] and None,
    "lexicon": load_lexicon,
    "examples": lambda path: read_examples(LabelExample, str(path), "labelling.examples"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_few_words(tmp_path, bomb, reader):
    path = tmp_path / "c.yaml"
    path.write_text(BOMBS[bomb])
    try:
        with must_end():
            READERS[reader](path)
    except ConfigError as error:
        lines = str(error).split("\n")
        assert len(lines) <= MAX_MISTAKES + 1 and max(map(len, lines)) < 400 + len(str(path))


@pytest.mark.parametrize("number", ["1{}", "!!int 1{}", "!!float 1{}", "-1{}.5", "'1{}'"])
@pytest.mark.parametrize("pump", [":1", ":59", "_1", "0", "1", ".1", "e+1"])
def test_a_number_of_any_length_is_read_in_linear_time(number, pump):
    def work(text):
        with contextlib.suppress(yaml.YAMLError):
            parse_yaml(text)

    once = number.format(pump * 20_000)
    check_linear(work, once, number.format(pump * 20_000 * FACTOR), what=f"{number} of {pump}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("12:30", "12:30"), ("1:30:00", "1:30:00"), ("-1:30.5", "-1:30.5"), ("12", 12), ("-1_000", -1000)),
        *(("0x1f", 31), ("0b11", 3), ("010", 8), ("+7", 7), ("0", 0), ("1.5", 1.5), ("-.inf", -math.inf)),
        *((".5", 0.5), ("1.", 1.0), ("1.5e-3", 0.0015), ("1e5", "1e5"), ("0x", "0x")),
    ],
)
def test_numbers_are_those_of_yaml_without_times_of_day(text, value):
    assert parse_yaml(f"a: {text}") == {"a": value}


def test_each_alias_counts_as_what_it_stands_for(monkeypatch):
    monkeypatch.setattr(strict_yaml, "MAX_YAML_VALUES", 100)
    assert parse_yaml("{a: &a [1, 2], b: [*a, *a]}") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    with pytest.raises(yaml.YAMLError, match="aliases stand for more than 100 values"):
        parse_yaml("{a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9], b: [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]}")


def test_no_more_of_a_value_is_written_out_than_is_quoted():
    value = ["x"]
    for _ in range(60):
        value = [value] * 10
    assert format_value(value) == "[" * 57 + "..."


# ------------------------------------------------------------------------------------------------- many principles
def principles(num):
    return [
        {"id": f"p{i}", "category": "honesty", "source": "s", "comparison": f"Which answer about {i} is more {i % 7}?"}
        for i in range(num)
    ]


def test_too_many_principles_are_refused_in_one_line(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(str(principles(20_000)).replace("'", '"'))
    tree = {"name": "n", "version": "1", "principles": principles(20_000)}
    with pytest.raises(ValueError, match=f"at most {MAX_PRINCIPLES:,}".replace(",", "")):
        Constitution.model_validate(tree)
    assert [f"{found}"[:100] for found in findings(draft_of(tree, "c.yaml")) if found.code == "C001"] == [
        f"C001 error c.yaml: principles: may have at most {MAX_PRINCIPLES}, has {len(tree['principles'])}; remove some"[
            :100
        ]
    ]


@pytest.mark.parametrize("text", ["Which answer is more kind to {i}?", "Which is kinder?", "{i} {j} {k} more a less b"])
def test_lint_and_diff_of_many_principles_are_linear(text):
    def work(size):
        rows = [
            {**row, "comparison": text.format(i=i, j=i % 50, k=i % 51)}
            for i, row in enumerate(principles(MAX_PRINCIPLES // FACTOR * len(size)))
        ]
        list(findings(draft_of({"principles": rows}, "c.yaml")))
        one = Constitution(name="n", version="1", principles=rows)
        diff(one, one.model_copy(update={"principles": one.principles[::-1]}))

    check_linear(work, "x", "x" * FACTOR, what=text)


def test_many_statements_of_one_name_are_imported(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("Be kind to everyone.\n" * 50_000)
    ids = [row["id"] for row in tree_of([path])["principles"]]
    assert len(set(ids)) == 50_000 and ids[:2] == ["be_kind_to_everyone", "be_kind_to_everyone_2"]


@pytest.mark.parametrize(
    "statement", [" " * 40_000 + "x", "“" * 40_000, "?" * 40_000 + "x", "[" * 40_000, "[a](" * 10_000, "\n" * 40_000]
)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".csv", ".json"])
def test_long_statements_are_imported_and_linted(tmp_path, suffix, statement):
    path = tmp_path / f"c{suffix}"

    def work(text):
        path.write_text(
            {".json": f'["{text}"]', ".csv": f'statement\n"{text}"\n', ".md": f"- a{text}"}.get(suffix, text)
        )
        try:
            list(findings(draft_of(tree_of([path]), "c.yaml")))
        except ConfigError as error:
            assert len(str(error)) < 500

    check_linear(work, statement[: len(statement) // FACTOR], statement)


# ----------------------------------------------------------------------------------------------- lexicon, template
def test_a_step_that_holds_two_is_refused(tmp_path):
    lexicon = yaml.safe_load(SHIPPED_LEXICON.read_text())
    lexicon["benign"]["actions"][0]["steps"] = ["x", "x, then x"]
    path = tmp_path / "l.yaml"
    path.write_text(yaml.safe_dump(lexicon))
    with pytest.raises(ConfigError, match="'x, then x': holds two steps; give each by itself"):
        load_lexicon(path)


@pytest.mark.parametrize("path", ["a\0b", "~nosuchuser/a.yaml", "x" * 5000 + ".yaml", "."])
def test_names_that_no_file_can_have_are_refused(path):
    for read in (
        lambda: load_constitution(path if path != "." else "./."),
        lambda: load_lexicon(path),
        lambda: read_template(path),
        lambda: read_examples(LabelExample, path, "labelling.examples"),
        lambda: load_config(path),
    ):
        with pytest.raises(ConfigError):
            read()


@pytest.mark.parametrize(
    "override", ["={}", "{}", "{}=1", "generator.{}=1", "generator.placement.{}=b", "{}=[", "seed={}"]
)
def test_an_override_of_any_length_is_refused_in_few_words(tmp_path, override):
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "empty.yaml", [override.format("x" * 100_000)])
    assert len(str(caught.value)) < 300
